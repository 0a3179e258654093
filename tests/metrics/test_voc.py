"""VOC's two forms of average precision against loops over the devkit's definition."""

import numpy as np
import pytest

from fpn_jax.metrics import average_precision as ap
from fpn_jax.metrics import voc
from fpn_jax.views.matching import iou
from tests.metrics.test_average_precision import CLASSES, split


def computed(rows, num_classes=CLASSES):
    return voc.average_precision(
        ap.Boxes(rows["boxes"], rows["box_labels"]),
        rows["box_scores"],
        ap.Boxes(rows["true_boxes"], rows["true_labels"]),
        rows["true_crowd"],
        num_classes,
    )


def by_definition(rows, label):
    """Returns both forms for a class, as the development kit computes them."""
    places = [
        (-rows["box_scores"][row, n], row, n)
        for row, n in np.argwhere(rows["box_labels"] == label)
    ]
    detected, true, false = set(), [], []
    for _, row, n in sorted(places):
        best, place = -np.inf, None
        for m, box in enumerate(rows["true_boxes"][row]):
            if rows["true_labels"][row, m] == label:
                plain = np.zeros(1, bool)
                value = iou(rows["boxes"][row][n][None], box[None], plain)[0, 0]
                if value > best:
                    best, place = value, m
        hit = best >= 0.5
        if hit and rows["true_crowd"][row, place]:
            continue
        true.append(hit and (row, place) not in detected)
        false.append(not true[-1])
        if hit:
            detected.add((row, place))
    total = ((rows["true_labels"] == label) & (rows["true_crowd"] == 0)).sum()
    tp, fp = np.cumsum(true), np.cumsum(false)
    recall, precision = tp / total, tp / (tp + fp)
    eleven = sum(
        max(precision[recall >= t], default=0) / 11 for t in np.arange(0, 1.05, 0.1)
    )
    recall = np.concatenate([[0], recall, [1]])
    precision = np.concatenate([[0], precision, [0]])
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return ((recall[steps] - recall[steps - 1]) * precision[steps]).sum(), eleven


@pytest.mark.parametrize("seed", range(20))
def test_both_forms_are_those_of_the_definition(seed, monkeypatch):
    monkeypatch.setattr(voc, "IMAGES_AT_A_TIME", 5)
    rows = split(seed)
    found = computed(rows)
    for label in range(CLASSES):
        expected = by_definition(rows, label)
        pair = found.area[label], found.eleven[label]
        np.testing.assert_allclose(pair, expected, atol=1e-12)


def boxes_of(*boxes):
    return np.array([boxes], np.float32)


def one_image(true, found, crowd=None, labels=None):
    """Returns AP of one class on one image; scores fall from box to box."""
    true_labels = np.zeros((1, len(true)), int) if labels is None else labels
    rows = {
        "boxes": boxes_of(*found).reshape(1, -1, 4),
        "box_labels": np.zeros((1, len(found)), int),
        "box_scores": np.linspace(1, 0.5, len(found))[None],
        "true_boxes": boxes_of(*true).reshape(1, -1, 4),
        "true_labels": true_labels,
        "true_crowd": np.zeros_like(true_labels) if crowd is None else crowd,
    }
    found = computed(rows, 1)
    return found.area[0], found.eleven[0]


A, B = (0, 0, 10, 10), (20, 0, 30, 10)


def test_the_truth_is_perfect_and_nothing_is_zero():
    assert one_image([A, B], [A, B]) == (1, 1)
    assert one_image([A, B], []) == (0, 0)
    assert one_image([], [A]) == (-1, -1)
    # Half of the boxes: six of eleven recalls are at most 0.5.
    assert one_image([A, B], [A]) == pytest.approx((0.5, 6 / 11))


def test_the_second_detection_of_a_box_is_wrong():
    twice = 0.5 + 0.5 * 2 / 3, (6 + 5 * 2 / 3) / 11
    assert one_image([A, B], [A, A, B]) == pytest.approx(twice)


def test_a_difficult_box_and_one_of_an_unknown_class_do_not_count():
    assert one_image([A, B], [A, B], crowd=np.array([[1, 0]])) == (1, 1)
    assert one_image([A, B], [A, B], labels=np.array([[-1, 0]])) == (1, 1)


def test_the_mean_is_over_classes_that_are_there():
    assert voc.mean(np.array([0.5, -1, 1.0])) == 0.75
    assert voc.mean(np.array([-1.0, -1.0])) == -1
