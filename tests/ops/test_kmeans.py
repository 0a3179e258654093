"""Proposed anchors: planted clusters, exhaustive search, and what can go wrong."""

import itertools

import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops.kmeans import propose, shape_iou


def test_planted_clusters_are_found():
    rng = np.random.default_rng(0)
    planted = np.array([(10.0, 20), (40, 30), (90, 80)])
    sizes = np.concatenate([c * rng.uniform(0.9, 1.1, (50, 2)) for c in planted])
    found = propose(rng.permutation(sizes), 3)
    np.testing.assert_allclose(found.anchors, planted, rtol=0.03)
    assert 0.85 < found.average_iou < 0.95
    np.testing.assert_array_equal(propose(sizes, 3).anchors, propose(sizes, 3).anchors)


def test_more_anchors_fit_better_and_one_for_each_box_fits_exactly():
    sizes = np.random.default_rng(1).uniform(5, 90, (60, 2))
    values = [propose(sizes, count).average_iou for count in (1, 2, 4, 8, 60)]
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(1)


def test_a_small_set_is_nearly_divided_as_by_exhaustive_search():
    rng, shares = np.random.default_rng(2), []
    for _ in range(10):
        sizes = rng.uniform(5, 60, (7, 2))
        best = 0.0
        for labels in itertools.product(range(2), repeat=7):
            groups = [sizes[np.array(labels) == k] for k in range(2)]
            if all(map(len, groups)):
                means = np.array([group.mean(0) for group in groups])
                best = max(best, shape_iou(sizes, means).max(1).mean())
        shares.append(propose(sizes, 2).average_iou / best)
    # A mean is not the best anchor of a cluster, and k-means finds local optima.
    assert np.mean(shares) > 0.93
    assert min(shares) > 0.84


def test_the_iou_of_shapes_is_that_of_boxes_with_one_corner():
    iou = shape_iou(np.array([[10.0, 20.0]]), np.array([[20.0, 10.0], [10.0, 20.0]]))
    np.testing.assert_allclose(iou, [[100 / 300, 1]])


def test_too_few_shapes_are_refused():
    with pytest.raises(InputError, match="3 anchors need as many boxes of different"):
        propose(np.array([[3.0, 4.0]] * 9 + [[5.0, 5.0]]), 3)
    with pytest.raises(InputError, match="count is 0"):
        propose(np.ones((4, 2)), 0)
