"""The view of classified images: tables, drawings and page."""

import dataclasses
import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from fpn_jax.report import html
from fpn_jax.views import classes as classes_module
from fpn_jax.views.base import Evaluated
from fpn_jax.views.classes import ClassesView
from tests.report import page as pages

ATTACK = '"><script>alert(1)</script>'
VIEW = ClassesView()


def info(*classes):
    return SimpleNamespace(classes=classes, landmark_names=())


CAT_OR_DOG = info("cat", "dog")


def load_image(row):
    rng = np.random.default_rng(row)
    return rng.integers(0, 256, (33, 50, 3), dtype=np.uint8)


def explain(rows, targets):
    assert len(rows) == len(targets)
    return [{3: np.zeros((5, 7)), 2: np.full((9, 13), 0.5)} for _ in rows]


def rows_of(labels, probabilities):
    return {
        "index": np.arange(len(labels)),
        "label": labels,
        "predicted": probabilities.argmax(axis=1),
        "probabilities": probabilities,
    }


def evaluated(count=60, classes=2, seed=0, **changes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    scores = rng.normal(size=(count, classes))
    scores[np.arange(count), labels] += 1.5
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    made = Evaluated(
        rows=rows_of(labels, probabilities),
        ids=[f"Validate/{index}.jpg" for index in range(count)],
        metrics={},
        split="validate",
        load_image=load_image,
        explain=explain,
    )
    return dataclasses.replace(made, **changes)


def wrong_rows(made):
    """Returns the rows of mistakes, the most confident first."""
    rows = made.rows
    wrong = np.flatnonzero(rows["predicted"] != rows["label"])
    return wrong[np.argsort(-rows["probabilities"].max(axis=1)[wrong])]


@pytest.fixture
def read(tmp_path):
    def write_and_read(made, info=CAT_OR_DOG):
        path = tmp_path / "report.html"
        contents = html.Contents(
            title="A run",
            config={},
            environment={},
            entries=[],
            headline=VIEW.headline(made, info),
            sections=VIEW.sections(made, info),
            skipped=[],
            step=100,
            split=made.split,
        )
        html.write(path, contents)
        return pages.read(path)

    return write_and_read


def test_a_table_row_has_class_and_probabilities():
    answer = {"label": np.int32(1), "probabilities": np.float32([0.1234567, 0.8765433])}
    assert VIEW.columns(CAT_OR_DOG) == ("class", "probability_cat", "probability_dog")
    assert VIEW.rows(answer, CAT_OR_DOG) == [
        {"class": "dog", "probability_cat": 0.123457, "probability_dog": 0.876543}
    ]
    (line,) = VIEW.rows(answer, CAT_OR_DOG)
    assert tuple(line) == VIEW.columns(CAT_OR_DOG)


def test_the_shown_class_is_the_label_of_the_answer_not_the_argmax():
    answer = {"label": np.int32(0), "probabilities": np.float32([0.2, 0.8])}
    assert VIEW.rows(answer, CAT_OR_DOG)[0]["class"] == "cat"
    assert "argmax" not in inspect.getsource(classes_module)
    made = evaluated()
    always_cat = np.zeros(60, np.int32)
    rows = {**made.rows, "predicted": always_cat}
    made = dataclasses.replace(made, rows=rows)
    mistakes = VIEW.mistakes(made, CAT_OR_DOG)
    assert len(mistakes) == (made.rows["label"] == 1).sum()
    assert {line["predicted"] for line in mistakes} == {"cat"}


@pytest.mark.parametrize("side", [1, 64, 2000])
def test_a_drawing_shows_class_and_probability_below_the_picture(side):
    image = np.full((side, side, 3), 90, np.uint8)
    answers = [
        {"label": np.int32(label), "probabilities": np.float32(probabilities)}
        for label, probabilities in ((0, [0.6, 0.4]), (1, [0.4, 0.6]), (1, [0.2, 0.8]))
    ]
    drawings = [VIEW.draw(image, answer, CAT_OR_DOG) for answer in answers]
    for drawing in drawings:
        assert drawing.dtype == np.uint8
        assert (drawing[: drawing.shape[1]] == 90).all()
    assert (drawings[0] != drawings[1]).any()
    assert (drawings[1] != drawings[2]).any()


def test_headline_is_computed_from_the_rows(read):
    made = evaluated()
    right = 60 - len(wrong_rows(made))
    page = read(made)
    assert f"{right} of 60 validation images correct." in page.text
    assert f"Accuracy {100 * right / 60:.2f} %" in page.text
    most = max(np.bincount(made.rows["label"]))
    assert f"Majority-class baseline: {100 * most / 60:.1f} %." in page.text
    assert f"Images 60 {60 - right} wrong" in page.text
    assert "Classes 2 cat, dog Step 100" in page.text
    assert "probabilities that are not finite" not in page.text


def test_page_is_self_contained_and_accessible(read):
    page = read(evaluated())
    pages.assert_self_contained(page)
    pages.assert_accessible(page)
    assert "P2 stride 4" in page.text
    assert "P3 stride 8, all zero" in page.text
    assert page.text.index("P2 stride 4") < page.text.index("P3 stride 8")


def test_gallery_shows_the_most_confident_mistakes_first(read):
    made = evaluated(count=200, explain=None)
    order = wrong_rows(made)
    assert len(order) > 12
    text = read(made).text
    assert f"The 12 most confident of {len(order)} mistakes" in text
    positions = [text.index(f"Validate/{row}.jpg") for row in order[:12]]
    assert positions == sorted(positions)
    assert f"Validate/{order[12]}.jpg" not in text


def test_mistakes_list_every_wrong_record_most_confident_first():
    made = evaluated(count=200)
    names = np.array(CAT_OR_DOG.classes)
    assert VIEW.mistakes(made, CAT_OR_DOG) == [
        {
            "id": f"Validate/{row}.jpg",
            "label": names[made.rows["label"][row]],
            "predicted": names[made.rows["predicted"][row]],
            "probability": round(float(made.rows["probabilities"][row].max()), 6),
        }
        for row in wrong_rows(made)
    ]


def test_only_images_that_are_shown_are_loaded():
    loaded = []

    def load(row):
        loaded.append(row)
        return load_image(row)

    made = evaluated(count=500, load_image=load)
    VIEW.headline(made, CAT_OR_DOG)
    VIEW.mistakes(made, CAT_OR_DOG)
    assert loaded == []
    VIEW.sections(made, CAT_OR_DOG)
    assert len(loaded) == 12 + 6


def test_mistakes_and_correct_images_of_each_class_are_explained():
    asked = []

    def explain_and_note(rows, targets):
        asked.extend(zip(rows, targets.tolist(), strict=True))
        return explain(rows, targets)

    made = evaluated(count=200, classes=3, explain=explain_and_note)
    VIEW.sections(made, info("cat", "dog", "fox"))
    rows, targets = zip(*asked, strict=True)
    assert list(targets) == made.rows["predicted"][list(rows)].tolist()
    assert list(rows[:2]) == wrong_rows(made)[:2].tolist()
    label, predicted = made.rows["label"], made.rows["predicted"]
    right = [np.flatnonzero((label == c) & (predicted == c)) for c in range(3)]
    assert rows[2:] == (right[0][0], right[1][0], right[2][0], right[0][1])


def test_a_task_without_explanations_has_no_section_for_them():
    sections = VIEW.sections(evaluated(explain=None), CAT_OR_DOG)
    anchors = [section.anchor for section in sections]
    assert anchors == ["confusion", "calibration", "classes", "mistakes"]
    sections = VIEW.sections(evaluated(), CAT_OR_DOG)
    assert sections[-1].anchor == "activation"


def test_page_with_one_record_of_one_class(read):
    made = evaluated(
        rows=rows_of(np.array([0]), np.array([[1.0]])), ids=["a.jpg"], explain=None
    )
    page = read(made, info("cat"))
    assert "1 of 1 validation image correct." in page.text
    assert "No mistakes in 1 image." in page.text
    assert page.all("img") == []


@pytest.mark.parametrize(("count", "paired"), [(12, True), (13, False)])
def test_a_large_confusion_matrix_has_its_own_row(count, paired):
    names = info(*(f"breed {number}" for number in range(count)))
    sections = VIEW.sections(evaluated(300, count, explain=None), names)
    assert [section.paired for section in sections[:3]] == [paired, paired, False]


def test_frequent_mistakes_are_listed_for_three_or_more_classes(read):
    labels = np.array([0, 0, 0, 1, 2])
    probabilities = np.eye(3)[[1, 1, 0, 1, 0]]
    made = evaluated(rows=rows_of(labels, probabilities), ids=list("abcde"))
    text = read(made, info("cat", "dog", "fox")).text
    assert "Most frequent mistakes: cat → dog 2 fox → cat 1" in text
    assert "Most frequent mistakes" not in read(evaluated()).text


def test_names_are_escaped(read):
    names = (ATTACK, "$a$ & 猫", *(f"breed {number}" for number in range(35)))
    made = evaluated(
        count=300,
        classes=len(names),
        ids=[f"/very/long/{'path/' * 60}{ATTACK}{index}" for index in range(300)],
        split=ATTACK,
    )
    page = read(made, info(*names))
    pages.assert_self_contained(page)
    assert page.text.count(ATTACK) > 10
    assert "$a$ & 猫" in page.text
    assert f"Classes 37 {ATTACK}, $a$ & 猫, breed 0, breed 1 …" in page.text


def test_nonfinite_probabilities_count_as_wrong_and_are_listed(read):
    made = evaluated()
    probabilities = made.rows["probabilities"].copy()
    probabilities[:3] = np.nan
    rows = rows_of(made.rows["label"], probabilities)
    right = (rows["predicted"] == rows["label"])[3:].sum()
    made = dataclasses.replace(made, rows=rows)
    text = read(made).text
    assert f"{right} of 60 validation images correct" in text
    assert "3 of 60 images have probabilities that are not finite. They count" in text
    mistakes = VIEW.mistakes(made, CAT_OR_DOG)
    assert len(mistakes) == 60 - right
    for row, line in enumerate(mistakes[-3:]):
        assert line["id"] == f"Validate/{row}.jpg"
        assert line["predicted"] == ""
        assert np.isnan(line["probability"])


def test_page_without_any_finite_probability(read):
    made = evaluated()
    nothing = np.full((60, 2), np.nan)
    made = dataclasses.replace(made, rows=rows_of(made.rows["label"], nothing))
    text = read(made).text
    assert "0 of 60 validation images correct" in text
    assert "No mistakes among the images with finite probabilities." in text
    assert "No image has finite probabilities, so none is explained." in text


@pytest.mark.parametrize("method", ["headline", "sections", "mistakes"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": np.zeros((60, 3))}, r"need \[60, 2\]"),
        ({"label": np.full(60, 2)}, "label has values from 2 to 2"),
        ({"predicted": np.full(60, -1)}, "predicted has values from -1 to -1"),
    ],
)
def test_rows_that_do_not_fit_the_classes_are_refused(method, changes, message):
    made = evaluated()
    made = dataclasses.replace(made, rows={**made.rows, **changes})
    with pytest.raises(ValueError, match=message):
        getattr(VIEW, method)(made, CAT_OR_DOG)


def test_a_prediction_that_is_not_finite_has_no_class():
    info = SimpleNamespace(classes=("cat", "dog"))
    answer = {"label": np.int32(0), "probabilities": np.array([np.nan, np.nan])}
    (line,) = ClassesView().rows(answer, info)
    assert line["class"] == ""
    assert line["error"] == "the probabilities are not finite"
    picture = ClassesView().draw(np.zeros((130, 130, 3), np.uint8), answer, info)
    assert picture.shape[0] > 130
