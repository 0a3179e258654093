import dataclasses
import html.parser
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from sklearn import metrics

from fpn_jax.report import html as report
from fpn_jax.report import plots

VOID = {"meta", "img", "wbr", "br", "link"}
ATTACK = "<script>alert(1)</script>"


def load_image(index):
    rng = np.random.default_rng(index)
    return rng.integers(0, 256, (33, 50, 3), dtype=np.uint8)


def contents(count=60, classes=("cat", "dog"), seed=0, **changes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), count)
    scores = rng.normal(size=(count, len(classes)))
    scores[np.arange(count), labels] += 1.5
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    records = [
        {"step": step, "train/loss": 1 / step, "train/learning_rate": 0.1}
        for step in range(1, 101)
    ]
    records.append({"step": 100, "validate/accuracy": 0.8, "validate/loss": 0.4})
    made = report.Contents(
        title="A run",
        config={"model": {"levels": (2, 3), "width": 256}, "seed": 0},
        environment={"jax": "0.10.2"},
        records=records,
        classes=tuple(classes),
        labels=labels,
        probabilities=probabilities,
        ids=[f"Validate/{index}.jpg" for index in range(count)],
        load_image=load_image,
        heat_maps=[report.HeatMap(1, {2: np.eye(9, 13, dtype=np.float32)})],
        skipped=[("Train/Cat/666.jpg", "is empty")],
        split="validate",
        step=100,
    )
    return dataclasses.replace(made, **changes)


class Page(html.parser.HTMLParser):
    """Reads a page; fails on a tag that is not closed in its turn."""

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        # A path may break after each separator, so it comes in pieces.
        return " ".join(" ".join(self.texts).split()).replace("/ ", "/")


@pytest.fixture
def read(tmp_path):
    def write_and_read(made):
        path = tmp_path / "made" / "report.html"
        report.write(path, made)
        return Page(path.read_text(encoding="utf-8"))

    return write_and_read


def test_confusion_matrix_and_class_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, (2, 300))
    matrix = report.confusion_matrix(labels, predicted, 5)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted))
    expected = metrics.precision_recall_fscore_support(labels, predicted)
    for ours, theirs in zip(report.class_scores(matrix), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_class_that_never_occurs_has_no_scores():
    scores = report.class_scores(np.array([[3, 0, 0], [1, 2, 0], [0, 0, 0]]))
    np.testing.assert_allclose(scores.recall, [1, 2 / 3, np.nan])
    np.testing.assert_allclose(scores.precision, [3 / 4, 1, np.nan])
    assert np.isnan(scores.f1[2])
    assert scores.support.tolist() == [3, 3, 0]


def test_calibration_error_is_that_of_a_loop_over_the_bins():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(500), [0.0, 1.0, 1 / 15, 0.2]])
    correct = rng.random(504) < confidence
    error = 0.0
    for low, high in zip(
        np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True
    ):
        # The paper's bins are (low, high]; the first one takes 0 as well.
        chosen = (confidence > low) & (confidence <= high)
        chosen |= (low == 0) & (confidence == 0)
        if chosen.any():
            gap = abs(correct[chosen].mean() - confidence[chosen].mean())
            error += chosen.mean() * gap
    got = report.calibration(confidence, correct)
    np.testing.assert_allclose(got.error, error, rtol=1e-12)
    assert got.count.sum() == 504


def test_calibration_error_of_known_cases():
    assert report.calibration(np.ones(4), np.ones(4, bool)).error == 0
    assert report.calibration(
        np.full(4, 0.9), np.zeros(4, bool)
    ).error == pytest.approx(0.9)
    assert np.isnan(report.calibration(np.zeros(0), np.zeros(0, bool)).error)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998),
    # table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)],
)
def test_wilson_interval_is_the_published_one(correct, total, low, high):
    np.testing.assert_allclose(
        report.wilson_interval(correct, total), (low, high), atol=5e-5
    )


def test_series_skips_what_is_absent_and_reads_what_is_not_finite():
    records = [{"step": 1, "a": 2}, {"step": 2, "b": 1}]
    records += [
        {"step": 3, "a": "NaN"},
        {"step": 4, "a": None},
        {"step": 5, "a": "inf"},
    ]
    steps, values = report.series(records, "a")
    assert steps.tolist() == [1, 3, 4, 5]
    np.testing.assert_array_equal(values, [2, np.nan, np.nan, np.nan])


def test_smoothing_keeps_a_constant_and_passes_over_nan():
    values = np.full(200, 3.0)
    values[[0, 50, 51, 199]] = np.nan
    np.testing.assert_allclose(report.smooth(values), 3.0)
    noise = np.random.default_rng(0).normal(size=600)
    assert report.smooth(noise).std() < 0.4 * noise.std()


def test_page_needs_nothing_outside_itself_and_is_accessible(read):
    page = read(contents())
    for name, attributes in page.elements:
        for key in ("src", "href", "xlink:href"):
            if key in attributes:
                assert attributes[key].startswith(("data:image/jpeg;base64,", "#")), (
                    name
                )
    assert not page.all("script")
    assert not page.all("link")
    assert all(image["alt"] for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {link["href"][1:] for link in page.all("a")}
    assert targets <= set(ids)
    assert len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"


def test_style_and_figures_fetch_nothing_and_have_two_schemes(tmp_path):
    report.write(tmp_path / "report.html", contents())
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    assert "@import" not in source
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source
    for role in plots.ROLES:
        assert role not in source


def test_same_contents_give_the_same_bytes(tmp_path):
    before = dict(matplotlib.rcParams)
    report.write(tmp_path / "a.html", contents())
    report.write(tmp_path / "b.html", contents())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_headline_says_what_the_arrays_say(read):
    made = contents()
    right = (made.probabilities.argmax(1) == made.labels).sum()
    text = read(made).text
    assert f"Right on {right} of 60 images" in text
    assert f"{100 * right / 60:.2f} %" in text
    assert "model.levels [2, 3]" in text
    assert "jax 0.10.2" in text
    assert "P2 stride 4" in text
    assert "Train/Cat/666.jpg is empty" in text


def test_gallery_has_the_most_confident_mistakes_first(read):
    made = contents(count=200)
    predicted = made.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != made.labels)
    order = wrong[np.argsort(-made.probabilities.max(axis=1)[wrong])]
    assert len(order) > 12
    text = read(made).text
    assert f"The 12 most confident of {len(order)} mistakes" in text
    places = [text.index(f"Validate/{index}.jpg") for index in order[:12]]
    assert places == sorted(places)
    assert f"Validate/{order[12]}.jpg" not in text


def test_only_what_is_shown_is_loaded(tmp_path):
    loaded = []

    def load(index):
        loaded.append(index)
        return load_image(index)

    report.write(tmp_path / "report.html", contents(count=500, load_image=load))
    assert len(loaded) == 12 + 1


def test_no_mistakes_no_records_no_maps_no_skipped_files(read):
    labels = np.array([0])
    page = read(
        contents(
            labels=labels,
            probabilities=np.array([[1.0, 0.0]]),
            ids=["a.jpg"],
            records=[],
            heat_maps=[],
            skipped=[],
            config={},
            environment={},
        )
    )
    assert "No mistakes in 1 image." in page.text
    assert "The metrics have no record of training." in page.text
    assert "Every file could be used." in page.text
    assert page.all("img") == []


def test_one_record_is_a_page(read):
    record = {"step": 7, "train/loss": 0.5, "train/images_per_second": 800.4}
    text = read(contents(records=[record])).text
    assert "800 images/s" in text
    assert "Learning rate" not in text


def test_names_are_text_and_never_markup(read):
    names = (ATTACK, "$a$ & 猫", *(f"breed {number}" for number in range(35)))
    page = read(
        contents(
            count=300,
            classes=names,
            title=ATTACK,
            ids=[f"/very/long/{'path/' * 60}{ATTACK}{index}" for index in range(300)],
            config={ATTACK: ATTACK, "nan": float("nan")},
            skipped=[(ATTACK, ATTACK)],
            environment={ATTACK: ATTACK},
            split=ATTACK,
        )
    )
    assert not page.all("script")
    assert page.text.count("<script>alert(1)</") > 10
    assert "$a$ & 猫" in page.text


def test_what_is_not_finite_counts_as_wrong_and_is_named(read):
    made = contents()
    probabilities = made.probabilities.copy()
    probabilities[:3] = np.nan
    right = (probabilities.argmax(1) == made.labels)[3:].sum()
    records = [{"step": 1, "train/loss": float("nan")}, {"step": 2, "train/loss": 1.0}]
    text = read(contents(probabilities=probabilities, records=records)).text
    assert f"Right on {right} of 60 images" in text
    assert "3 of 60 images got probabilities that are not finite" in text
    assert "1 value is not finite and left out" in text
    nothing = np.full_like(probabilities, np.nan)
    text = read(contents(probabilities=nothing, records=records[:1])).text
    assert "Right on 0 of 60 images" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(0, int)}, "has no image"),
        ({"probabilities": np.zeros((60, 3))}, r"make it \[60, 2\]"),
        ({"ids": ["a"]}, "1 ids for 60 labels"),
        ({"labels": np.full(60, 2)}, "from 2 to 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        contents(**changes)


def test_overlay_glows_where_the_map_does_on_an_odd_sized_picture():
    image = np.full((33, 50, 3), 128, np.uint8)
    heat = np.zeros((5, 7), np.float32)
    heat[0, 0], heat[4, 6] = 1.0, np.nan
    shown = plots.overlay(image, heat, level=3).astype(int)
    assert shown.shape == image.shape
    assert np.ptp(shown[-1, -1]) == 0
    assert np.ptp(shown[2, 2]) > 40
    with pytest.raises(ValueError, match=r"has \[5, 7\] cells"):
        plots.overlay(image, heat[:4], level=3)


def test_photograph_is_at_most_384_pixels_and_refuses_floats():
    large = np.zeros((400, 1000, 3), np.uint8)
    assert len(plots.photograph(large)) < 10_000
    with pytest.raises(ValueError, match="float64"):
        plots.photograph(np.zeros((4, 4, 3)))


def test_many_records_stay_a_small_figure():
    steps = np.arange(100_000)
    noise = np.random.default_rng(0).normal(size=len(steps))
    svg = plots.curves("loss", [plots.Curve("a", steps, noise)], "loss")
    assert len(svg) < 200_000


def test_import_loads_neither_matplotlib_nor_jax():
    code = (
        "import sys, fpn_jax.report.html; "
        "sys.exit(bool({'matplotlib', 'jax'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
