"""Average precision: the wiring to pycocotools, against loops over the definition."""

import sys

import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.metrics import average_precision as ap
from fpn_jax.views.matching import Objects, match

IMAGES, CLASSES = 12, 3
IOUS = np.linspace(0.5, 0.95, 10)


def split(seed, most_true=5, most_found=9):
    """Returns random rows of an evaluation, with crowds, ties and empty images."""
    rng = np.random.default_rng(seed)

    def boxes(count, most):
        corner = rng.uniform(0, 80, (IMAGES, most, 2))
        made = np.concatenate([corner, corner + rng.uniform(4, 60, corner.shape)], -1)
        there = np.arange(most) < rng.integers(0, count + 1, IMAGES)[:, None]
        labels = np.where(there, rng.integers(0, CLASSES, (IMAGES, most)), -1)
        return np.where(there[..., None], made, 0).astype(np.float32), labels

    true, true_labels = boxes(most_true, most_true)
    found, labels = boxes(most_found, most_found)
    # Half of the detections lie near a true box of their class.
    near = rng.random(labels.shape) < 0.5
    near &= (labels >= 0) & (true_labels[:, :1] >= 0)
    found = np.where(
        near[..., None], true[:, :1] + rng.normal(0, 2, found.shape), found
    )
    labels = np.where(near, true_labels[:, :1], labels)
    scores = np.round(rng.random(labels.shape), 1) * (labels >= 0)
    order = np.argsort(-scores, axis=1, kind="stable")
    crowd = (rng.random(true_labels.shape) < 0.1) & (true_labels >= 0)
    return {
        "boxes": np.take_along_axis(found, order[..., None], 1).astype(np.float32),
        "box_labels": np.take_along_axis(labels, order, 1),
        "box_scores": np.take_along_axis(scores, order, 1).astype(np.float32),
        "box_shown": np.take_along_axis(labels, order, 1) >= 0,
        "true_boxes": true,
        "true_labels": true_labels,
        "true_crowd": crowd.astype(np.int32),
    }


def computed(rows, num_classes=CLASSES):
    return ap.average_precision(
        ap.Boxes(rows["boxes"], rows["box_labels"]),
        rows["box_scores"],
        ap.Boxes(rows["true_boxes"], rows["true_labels"]),
        rows["true_crowd"],
        num_classes,
    )


def by_definition(rows, label, threshold):
    """Returns AP of a class at an IoU: 101 recalls, precision from the right."""
    right, scores, total = [], [], 0
    for row in range(len(rows["boxes"])):
        objects = Objects.of(rows, row)
        mine, true = objects.labels == label, objects.true_labels == label
        objects = objects._replace(
            boxes=objects.boxes[mine],
            scores=objects.scores[mine],
            labels=objects.labels[mine],
            true_boxes=objects.true_boxes[true],
            true_labels=objects.true_labels[true],
            crowd=objects.crowd[true],
        )
        total += int((~objects.crowd).sum())
        for score, found in zip(
            objects.scores, match(objects, threshold=threshold), strict=True
        ):
            if found != -2:
                right.append(found >= 0)
                scores.append(score)
    if not total:
        return -1.0
    order = np.argsort(-np.array(scores), kind="stable")
    hits = np.cumsum(np.array(right, bool)[order])
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / total
    values = []
    for least in np.linspace(0, 1, 101):
        reached = precision[recall >= least - 1e-12]
        values.append(reached.max() if len(reached) else 0.0)
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_average_of_the_definition(seed):
    rows = split(seed)
    expected = np.array(
        [[by_definition(rows, k, iou) for iou in IOUS] for k in range(CLASSES)]
    )
    result = computed(rows)
    counted = expected[:, 0] >= 0
    np.testing.assert_allclose(result.class_ap50, expected[:, 0], atol=1e-9)
    np.testing.assert_allclose(
        result.class_ap[counted], expected.mean(1)[counted], atol=1e-9
    )
    assert result.summary["ap"] == pytest.approx(expected[counted].mean(), abs=1e-9)
    assert result.summary["ap75"] == pytest.approx(
        expected[counted, 5].mean(), abs=1e-9
    )


def test_the_truth_as_prediction_scores_one():
    rows = split(0)
    rows["true_crowd"][:] = 0
    rows |= {"boxes": rows["true_boxes"], "box_labels": rows["true_labels"]}
    rows["box_scores"] = np.ones(rows["box_labels"].shape, np.float32)
    result = computed(rows)
    # The sizes that no box has are −1.
    assert set(result.summary.values()) <= {1.0, -1.0} | {
        result.summary["ar1"],
        result.summary["ar10"],
    }
    assert result.summary["ap"] == result.summary["ar100"] == 1.0
    assert result.class_ap.tolist() == [1.0] * CLASSES


def test_no_detection_no_truth_and_neither():
    rows = split(1)
    rows["true_crowd"][:] = 0
    nothing = np.full_like(rows["box_labels"], -1)
    assert computed(rows | {"box_labels": nothing}).summary["ap"] == 0.0
    empty = np.zeros_like(rows["true_boxes"])
    assert computed(rows | {"true_boxes": empty}).summary["ap"] == -1.0
    both = computed(rows | {"true_boxes": empty, "box_labels": nothing})
    assert both.summary["ap"] == -1.0
    assert both.class_ap.tolist() == [-1.0] * CLASSES


def test_padding_may_hold_anything():
    rows = split(2)
    before = computed(rows)
    rows["true_boxes"][rows["true_labels"] < 0] = np.nan
    rows["true_crowd"][rows["true_labels"] < 0] = 7
    rows["boxes"][rows["box_labels"] < 0] = np.nan
    assert computed(rows).summary == before.summary


def test_a_true_box_of_an_unknown_class_is_a_crowd_of_every_class():
    box = np.array([[[10, 10, 50, 50], [60, 60, 90, 90]]], np.float32)
    rows = {
        "boxes": box,
        "box_labels": np.array([[1, 0]]),
        "box_scores": np.array([[0.9, 0.8]], np.float32),
        "true_boxes": box,
        "true_labels": np.array([[-1, 0]]),
        "true_crowd": np.zeros((1, 2), np.int32),
    }
    assert computed(rows, 2).summary["ap"] == pytest.approx(1)
    # Without that box, the better detection is wrong, but of another class.
    wrong = computed(rows | {"box_labels": np.array([[0, 0]])}, 2)
    assert wrong.summary["ap"] == pytest.approx(1)
    known = rows | {
        "true_labels": np.array([[1, 0]]),
        "box_labels": np.zeros((1, 2), int),
    }
    assert computed(known, 2).summary["ap"] < 0.9


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r"pip install .fpn_jax\[detection\]"):
        ap.require()
