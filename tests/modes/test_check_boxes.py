"""`--mode=check` of detectors: AP of the truth, fit of the anchors, shared cells."""

import json

import jax
import numpy as np
import pytest

from fpn_jax.metrics import average_precision
from fpn_jax.modes import Options, check
from fpn_jax.tasks import detection, inspection
from fpn_jax.tasks.grid import GridDetection
from tests.conftest import given
from tests.data.sources import annotated_files as write

SMALL = {"data__image_size": 64, "backbone__width": 8, "neck__width": 16}


@pytest.fixture
def root(tmp_path):
    """Returns a folder of photographs of 64 × 64 pixels with a file of COCO."""
    images, annotations = [], []
    for number in range(1, 9):
        write.photograph(tmp_path / f"{number}.jpg", (64, 64), seed=number)
        images.append(
            {"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 64}
        )
        for box in ((2, 2, 30, 30), (4, 4, 26, 27), (50, 1, 4, 40)):
            made = {"id": len(annotations) + 1, "image_id": number, "category_id": 7}
            annotations.append(made | {"bbox": list(box)})
    found = {"images": images, "annotations": annotations}
    found["categories"] = [{"id": 7, "name": "cat"}]
    (tmp_path / "annotations.json").write_text(json.dumps(found))
    return tmp_path


def run(root, network, **changes):
    config = given(
        f"configs/detection.py:coco+{network}",
        data__root=str(root),
        data__source__validate_fraction=0.4,
        **(SMALL | {"backbone": "resnet18"} | changes),
    )
    return check.run(Options(given=config))


def test_every_detector_compares_the_truth_with_itself(root, capsys):
    assert run(root, "fcos") == 0
    printed = capsys.readouterr().out
    assert "train: " in printed
    assert "boxes; the truth as prediction has AP 1.000" in printed
    # The thin box lies between the locations, and the large one has a smaller inside.
    assert "train: 12 of 18 boxes have no location, and are not learned" in printed
    assert "anchor" not in printed


def test_anchors_that_do_not_fit_are_named_with_a_proposal(root, capsys):
    assert run(root, "grid", task__anchors="((30, 30), (26, 26))") == 0
    printed = capsys.readouterr().out
    assert "IoU with the best anchor, by shape: small 0.7" in printed
    assert "33.3% of the boxes are below 0.5" in printed
    assert "k-means proposes the widths and heights (4, 40), (30, 30)" in printed
    assert "0 of " in printed
    assert run(root, "grid", task__anchors="((30, 30), (4, 40))", head__level=5) == 0
    printed = capsys.readouterr().out
    assert "0.0% of the boxes" in printed
    assert "proposes" not in printed
    # Both large boxes have their middle in one cell of 32 pixels.
    assert "boxes share cell and anchor with a larger one, and are not" in printed
    assert "\ntrain: 0 of" not in printed


def test_retinanet_has_anchors_on_every_level(root, capsys):
    assert run(root, "retinanet") == 0
    assert "IoU with the best anchor, by shape: small 0." in capsys.readouterr().out


def grid_of(size):
    """Returns a task with two anchors, and the shapes of its predictions."""
    shape = jax.ShapeDtypeStruct((1, *size, 2, 4), np.float32)
    task = GridDetection(1, anchors=((30.0, 30.0), (4.0, 40.0)))
    return task, {"grid_boxes": {5: shape}}


def test_a_crowd_is_neither_fitted_nor_takes_a_predictor():
    task, shapes = grid_of((2, 2))
    crowd, inside = (0, 0, 32, 32), (2, 2, 28, 28)
    for odd in ((0, 0, 60, 1), crowd):
        rows = {
            "boxes": np.array([[odd, inside, [np.nan] * 4]], np.float32),
            "box_labels": np.array([[0, 0, -1]]),
            "box_crowd": np.array([[1, 0, 0]]),
        }
        _, fit, shared = task.inspect(rows, shapes).lines
        assert fit.endswith("small 0.75 (1); 0.0% of the boxes are below 0.5")
        assert shared.startswith("0 of 1 boxes share")


def test_images_are_taken_a_part_at_a_time():
    task, shapes = grid_of((2, 2))
    count = 2 * detection.IMAGES_AT_A_TIME + 3
    rows = {
        "boxes": np.tile(
            np.array([(2, 2, 28, 28), (1, 1, 29, 29)], np.float32), (count, 1, 1)
        ),
        "box_labels": np.zeros((count, 2), np.int32),
        "box_crowd": np.zeros((count, 2), np.int32),
    }
    line = task.inspect(rows, shapes).lines[-1]
    assert line.startswith(f"{count} of {2 * count} boxes share")


def test_a_split_without_a_box_fails():
    none = np.zeros((3, 4, 4), np.float32), np.full((3, 4), -1), np.zeros((3, 4), int)
    assert inspection.truth_as_prediction(*none, 2) == (
        ("no box is to be found",),
        False,
    )
    assert inspection.fit_of_anchors(np.zeros((0, 4)), np.ones((1, 2))) == ()


def test_without_pycocotools_the_check_says_so(monkeypatch):
    def absent():
        raise average_precision.InputError("it is not installed")

    monkeypatch.setattr(average_precision, "require", absent)
    box = np.array([[[0, 0, 5, 5]]], np.float32)
    lines, passed = inspection.truth_as_prediction(
        box, np.zeros((1, 1), int), np.zeros((1, 1), int), 1
    )
    assert lines == ("not checked: it is not installed",)
    assert passed
