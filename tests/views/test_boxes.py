"""The view of detections: table, drawing, results, and what is right or wrong."""

import json

import numpy as np
import pytest
from pycocotools import coco

from fpn_jax.data.records import SourceInfo
from fpn_jax.modes.predict import _image_of
from fpn_jax.views import VIEWS
from fpn_jax.views.base import Evaluated
from fpn_jax.views.boxes import _Matched
from fpn_jax.views.matching import IGNORED, INVENTED, Objects, iou, match
from tests.metrics.test_average_precision import computed, split

INFO = SourceInfo(("cat", "<dog>"), ("boxes", "box_labels"), class_ids=(17, 18))
VIEW = VIEWS["boxes"]
SIZE = (60, 80)
ANSWER = {
    "boxes": np.array([[4, 4, 30, 30], [40, 8, 70, 50], [1, 1, 9, 9]], np.float32),
    "box_scores": np.array([0.9, 0.6, 0.1], np.float32),
    "box_labels": np.array([1, 0, 0]),
    "box_shown": np.array([True, True, False]),
}
NOTHING = ANSWER | {
    "box_labels": np.full(3, -1),
    "box_shown": np.zeros(3, bool),
    "box_scores": np.zeros(3, np.float32),
}
TRUTH = np.array(
    [
        # Found; of the other class; in a crowd.
        [[4, 4, 30, 31], [41, 8, 70, 50], [0, 0, 10, 10]],
        # The same object twice; nothing; nothing.
        [[4, 4, 30, 30], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    np.float32,
)
ROWS = {
    "boxes": np.stack([ANSWER["boxes"], ANSWER["boxes"][[0, 0, 2]], ANSWER["boxes"]]),
    "box_scores": np.stack([ANSWER["box_scores"]] * 3),
    "box_labels": np.array([[1, 0, 0], [1, 1, 0], [-1, -1, -1]]),
    "box_shown": np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool),
    "true_boxes": TRUTH,
    "true_labels": np.array([[1, 1, 0], [1, -1, -1], [-1, -1, -1]]),
    "true_crowd": np.array([[0, 0, 1], [0, 0, 0], [0, 0, 0]]),
}
SIZES = ("small", "medium", "large")
NUMBERS = (
    "ap",
    "ap50",
    "ap75",
    *(f"{n}_{size}" for n in ("ap", "ar") for size in SIZES),
)
METRICS = dict.fromkeys(NUMBERS, 0.5) | {
    "class_ap": [0.5, -1.0],
    "class_ap50": [0.5, -1.0],
}


def evaluated(**changes):
    rows = ROWS | changes
    rng = np.random.default_rng(0)
    return Evaluated(
        rows=rows,
        ids=[f"photos/{row}<b>.jpg" for row in range(len(rows["boxes"]))],
        metrics=METRICS,
        split="test",
        load_image=lambda row: rng.integers(256, size=(*SIZE, 3), dtype=np.uint8),
        explain=None,
    )


def test_every_reported_box_has_a_line_and_nothing_has_an_empty_one():
    first, second = VIEW.rows(ANSWER, INFO)
    assert tuple(first) == VIEW.columns(INFO)
    assert first["class"] == "<dog>"
    assert first["score"] == 0.9
    assert [second[side] for side in ("x0", "y0", "x1", "y1")] == [40, 8, 70, 50]
    (empty,) = VIEW.rows(NOTHING, INFO)
    assert set(empty.values()) == {""}


def test_results_have_every_detection_and_the_numbers_of_the_data():
    found = VIEW.results(ANSWER, INFO)
    assert [entry["category_id"] for entry in found] == [18, 17, 17]
    assert found[1]["bbox"] == [40, 8, 30, 42]
    assert VIEW.results(NOTHING, INFO) == []
    counted = SourceInfo(("cat", "dog"), ("boxes",))
    assert [e["category_id"] for e in VIEW.results(ANSWER, counted)] == [2, 1, 1]


def test_pycocotools_reads_the_results(capsys):
    truth = coco.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 139, "width": SIZE[1], "height": SIZE[0]}],
        "categories": [{"id": 17}, {"id": 18}],
        "annotations": [],
    }
    truth.createIndex()
    image = _image_of("photos/000000000139.jpg", 4)
    assert image == {"image_id": 139, "file_name": "000000000139.jpg"}
    assert _image_of("photos/anna.jpg", 4)["image_id"] == 4
    entries = [image | entry for entry in VIEW.results(ANSWER, INFO)]
    found = truth.loadRes(json.loads(json.dumps(entries)))
    assert len(found.getAnnIds(imgIds=[139], catIds=[17])) == 2
    (best,) = found.loadAnns(found.getAnnIds(catIds=[18]))
    assert best["bbox"] == [4, 4, 26, 26]
    assert best["score"] == pytest.approx(0.9)


def test_a_drawing_shows_the_reported_boxes_alone():
    picture = np.zeros((400, 400, 3), np.uint8)
    drawn = VIEW.draw(picture, ANSWER, INFO)
    assert not picture.any()
    assert drawn[20, 4].any()
    assert drawn[30, 40].any()
    alone = ANSWER | {"box_shown": np.array([False, False, True])}
    assert not VIEW.draw(picture, alone, INFO)[45, 60:72].any()
    assert VIEW.draw(picture, NOTHING, INFO).any()
    broken = ANSWER | {"boxes": np.full((3, 4), np.nan, np.float32)}
    assert not VIEW.draw(picture, broken, INFO).any()


@pytest.mark.parametrize("seed", range(4))
def test_matching_is_that_of_coco(seed):
    """Average precision from the matches equals pycocotools', at 101 recalls."""
    rows = split(seed)
    expected = computed(rows).class_ap50
    info = SourceInfo(("a", "b", "c"), ("boxes",))
    found = _Matched.of(evaluated(**rows))
    for curve in found.curves(info):
        label = info.classes.index(curve.label)
        values = [
            curve.precision[curve.recall >= least - 1e-12].max(initial=0)
            for least in np.linspace(0, 1, 101)
        ]
        assert np.mean(values) == pytest.approx(expected[label], abs=1e-9)


def test_a_crowd_hides_and_the_overlap_with_it_is_that_of_the_detection():
    objects = Objects.of(ROWS, 0)
    assert match(objects).tolist() == [0, INVENTED, IGNORED]
    assert match(objects, by_class=False).tolist() == [0, 1, IGNORED]
    inside = np.array([[2, 2, 4, 4]], np.float64)
    around = np.array([[0, 0, 10, 10]], np.float64)
    assert iou(inside, around, np.array([True]))[0, 0] == 1
    assert iou(inside, around, np.array([False]))[0, 0] == 0.04


def test_missed_doubled_and_invented_objects_are_counted():
    lines = VIEW.mistakes(evaluated(), INFO)
    assert lines == [
        {
            "id": "photos/0<b>.jpg",
            "objects": 2,
            "missed": 1,
            "doubled": 0,
            "invented": 1,
        },
        {
            "id": "photos/1<b>.jpg",
            "objects": 1,
            "missed": 0,
            "doubled": 1,
            "invented": 0,
        },
    ]
    matrix = _Matched.of(evaluated()).confusion(2)
    # True class by row, predicted by column; the last ones are the background.
    assert matrix.tolist() == [[0, 0, 0], [1, 2, 0], [0, 1, 0]]


def test_a_report_has_curves_tables_and_pictures_with_escaped_names():
    headline = VIEW.headline(evaluated(), INFO)
    assert "3 objects in 3 images of the test split" in headline.lead
    assert headline.numbers[0].value == "50.00\u00a0%"
    assert headline.numbers[3].value == "66.7\u00a0%"
    sections = VIEW.sections(evaluated(), INFO)
    anchors = [section.anchor for section in sections]
    assert anchors[:4] == ["curves", "confusion", "sizes", "classes"]
    assert anchors[4:] == ["missed", "invented", "doubled"]
    page = "".join(str(section.html) for section in sections)
    assert "data:image/jpeg;base64," in page
    assert "<b>.jpg" not in page
    assert "<dog>" not in page
    assert "–" in page


def test_a_split_without_an_object_is_reported():
    nothing = evaluated(true_boxes=np.zeros_like(TRUTH))
    (section,) = VIEW.sections(nothing, INFO)
    assert "No image shows an object" in section.html
    assert VIEW.headline(nothing, INFO).numbers[3].value == "–"
