"""The views of class maps, boxes and points: tables, drawings, reports."""

from types import SimpleNamespace

import numpy as np
import pytest

from fpn_jax.views import VIEWS, marks
from fpn_jax.views.base import Evaluated
from fpn_jax.views.ranked import ranked

INFO = SimpleNamespace(
    classes=("cat", "dog"),
    landmark_names=("left eye", "right eye", "nose"),
    mask_classes=("background", "cat", "<dog>"),
    class_ids=(),
)
SIZE = (24, 32)
COUNT = 6


def image(row=0):
    rng = np.random.default_rng(row)
    return rng.integers(256, size=(*SIZE, 3), dtype=np.uint8)


def mask(row=0):
    made = np.zeros(SIZE, np.uint8)
    made[4 : 12 + row, 6:20] = 1 + row % 2
    made[0, 0] = 255
    return made


def class_maps():
    truth = np.array([[600, 100, 60]] * COUNT)
    hits = truth - np.arange(COUNT)[:, None] * [5, 10, 4]
    rows = {
        "foreground_iou": np.linspace(0.3, 0.9, COUNT, dtype=np.float32),
        "intersection": hits,
        "predicted": truth,
        "truth": truth,
    }
    names = "mean_iou foreground_iou foreground_iou_per_image boundary_iou"
    metrics = dict.fromkeys([*names.split(), "pixel_accuracy"], 0.75)
    answer = {"mask": mask()}
    return "class_map", answer, rows, metrics, {"mask": mask()}


def boxes():
    true = np.array([[4, 4, 12, 16]] * COUNT, np.float32)
    found = true + np.arange(COUNT, dtype=np.float32)[:, None]
    there = np.array([True] * (COUNT - 1) + [False])
    rows = {
        "iou": np.linspace(0.9, 0.2, COUNT, dtype=np.float32),
        "there": there,
        "box": found,
        "true_box": true,
        "label": np.where(there, 0, -1),
        "predicted": np.array([0, 0, 1, 0, 0, 1]),
        "score": np.full(COUNT, 0.8, np.float32),
    }
    names = "box_iou found class_accuracy object_accuracy"
    answer = {
        "boxes": np.array([[4.4, 5.5, 20, 18]], np.float32),
        "box_scores": np.array([0.9], np.float32),
        "box_labels": np.array([1]),
    }
    return "box", answer, rows, dict.fromkeys(names.split(), 0.5), {"boxes": true[:1]}


def points():
    true = np.array([[[8, 8, 1], [20, 8, 1], [14, 16, 0]]] * COUNT, np.float32)
    error = np.array([[0.01, 0.02 * k, np.nan] for k in range(COUNT)], np.float32)
    error[4, 1] = 0.4
    rows = {"landmarks": true + 0.5, "true_landmarks": true, "error": error}
    answer = {
        "landmarks": np.array([[8, 8, 1], [20, 9, 1], [14, 16, 0]], np.float32),
        "landmark_scores": np.array([0.9, 0.8, 0.2], np.float32),
    }
    names = "nme median_error failure_rate points_found"
    return "points", answer, rows, dict.fromkeys(names.split(), 0.1), {}


CASES = {case()[0]: case for case in (class_maps, boxes, points)}
every_view = pytest.mark.parametrize("kind", CASES)


def case(kind, **changes):
    _, answer, rows, metrics, truth = CASES[kind]()
    evaluated = Evaluated(
        rows=rows | changes,
        ids=[f"photos/{row}<b>.jpg" for row in range(COUNT)],
        metrics=metrics,
        split="test",
        load_image=image,
        explain=None,
        answers=lambda rows: [answer] * len(rows),
        load_truth=lambda row: truth,
    )
    return VIEWS[kind], answer, evaluated


@every_view
def test_lines_of_the_table_have_the_columns(kind):
    view, answer, _ = case(kind)
    columns = view.columns(INFO)
    for line in view.rows(answer, INFO):
        assert tuple(line) == columns


def test_the_shares_of_the_classes_are_those_of_the_pixels():
    view, answer, _ = case("class_map")
    (line,) = view.rows(answer, INFO)
    pixels = SIZE[0] * SIZE[1]
    assert line["share_cat"] == round(8 * 14 / pixels, 6)
    assert line["share_background"] == round((pixels - 8 * 14 - 1) / pixels, 6)


def test_an_object_that_is_not_reported_has_no_class_and_no_corners():
    view, answer, _ = case("box")
    (line,) = view.rows(answer, INFO)
    assert line == {
        "class": "dog",
        "probability": 0.9,
        "x0": 4.4,
        "y0": 5.5,
        "x1": 20.0,
        "y1": 18.0,
    }
    (line,) = view.rows(answer | {"box_labels": np.array([-1])}, INFO)
    assert line["class"] == line["x0"] == ""


def test_every_landmark_has_a_line():
    view, answer, _ = case("points")
    lines = view.rows(answer, INFO)
    assert [line["landmark"] for line in lines] == list(INFO.landmark_names)
    assert [line["visible"] for line in lines] == [1, 1, 0]


@every_view
def test_a_drawing_changes_the_picture_where_the_answer_is_and_not_its_input(kind):
    view, answer, _ = case(kind)
    before = image()
    given = before.copy()
    drawn = view.draw(given, answer, INFO)
    np.testing.assert_array_equal(given, before)
    assert drawn.dtype == np.uint8
    factor = drawn.shape[0] // SIZE[0]
    plain = before.repeat(factor, axis=0).repeat(factor, axis=1)
    assert drawn.shape == plain.shape
    changed = (drawn != plain).any(-1)
    assert changed.any()
    if kind == "box":
        # Inside of the box, nothing is painted.
        assert not changed[10 * factor : 14 * factor, 8 * factor : 16 * factor].any()


def test_an_image_without_an_object_says_so():
    view, answer, _ = case("box")
    nothing = view.draw(image(), answer | {"box_labels": np.array([-1])}, INFO)
    assert (nothing != view.draw(image(), answer, INFO)).any()


def test_the_class_map_and_its_colours_are_files():
    view, answer, _ = case("class_map")
    files = view.files(answer, INFO)
    np.testing.assert_array_equal(files["_mask"], answer["mask"])
    colours = files["_colours"]
    assert colours[1, 1].tolist() == [0, 0, 0]
    assert colours[5, 7].tolist() == list(marks.colour_of(0))
    assert colours[0, 0].tolist() == list(marks.colour_of(-1))


@every_view
def test_a_report_has_numbers_and_sections_with_escaped_names(kind):
    view, _, evaluated = case(kind)
    headline = view.headline(evaluated, INFO)
    assert len(headline.numbers) == 4
    assert "6" in headline.lead or "5" in headline.lead
    sections = view.sections(evaluated, INFO)
    assert len({section.anchor for section in sections}) == len(sections) >= 3
    page = "".join(str(section.html) for section in sections)
    assert "data:image/jpeg;base64," in page
    assert "<svg" in page
    assert "<b>.jpg" not in page
    assert "&lt;b&gt;.jpg" in page
    assert "<dog>" not in page


def test_mistakes_are_the_images_that_were_answered_wrongly():
    view, _, evaluated = case("class_map")
    found = view.mistakes(evaluated, INFO)
    assert [line["foreground_iou"] for line in found] == [0.3, 0.42]
    view, _, evaluated = case("box")
    found = view.mistakes(evaluated, INFO)
    # Row 4 has an IoU below 0.5, row 2 another class, row 5 no object.
    assert [line["id"][7] for line in found] == ["4", "3", "2", "5"]
    view, _, evaluated = case("points")
    (line,) = view.mistakes(evaluated, INFO)
    assert line == {"id": "photos/4<b>.jpg", "error": 0.205}


def test_a_split_without_an_object_or_a_visible_point_is_reported():
    nothing = np.zeros(COUNT, bool)
    view, _, evaluated = case("box", there=nothing)
    (section,) = view.sections(evaluated, INFO)
    assert "No image shows an object" in section.html
    view, _, evaluated = case("points", error=np.full((COUNT, 3), np.nan))
    (section,) = view.sections(evaluated, INFO)
    assert "No image has a visible landmark" in section.html
    assert view.headline(evaluated, INFO).numbers[3].value == "–"
    assert view.mistakes(evaluated, INFO) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_place_that_is_no_number_is_not_drawn_and_counts_as_wrong(value):
    view, answer, evaluated = case("points")
    error = evaluated.rows["error"].copy()
    error[3] = np.inf
    landmarks = evaluated.rows["landmarks"].copy()
    landmarks[3, :, :2] = value
    view, answer, evaluated = case("points", error=error, landmarks=landmarks)
    answer = answer | {"landmarks": landmarks[3]}
    plain = np.zeros((40, 40, 3), np.uint8)
    drawn = view.draw(plain.copy(), answer, INFO)
    assert not drawn.any()
    assert view.mistakes(evaluated, INFO)[0]["id"][7] == "3"
    assert len(view.sections(evaluated, INFO)) > 1
    view, answer, _ = case("box")
    answer = answer | {"boxes": np.full((1, 4), np.nan, np.float32)}
    view.draw(plain.copy(), answer, INFO)


def test_ranked_rows_are_shown_once_and_nan_not_at_all():
    values = np.array([0.5, np.nan, 0.1, 0.9, 0.4])
    assert ranked(values, each=1) == [("worst", 2), ("median", 4), ("best", 3)]
    every = ranked(values, each=4)
    assert sorted(row for _, row in every) == [0, 2, 3, 4]
    assert ranked(np.array([np.nan])) == []
