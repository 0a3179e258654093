"""Anchors by hand, and matches against a loop."""

import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import anchors


def test_shapes_have_the_area_and_the_ratio():
    made = anchors.shapes((8, 32), (0.5, 1, 2))
    assert made.shape == (6, 4)
    width, height = made[:, 2] - made[:, 0], made[:, 3] - made[:, 1]
    np.testing.assert_allclose(np.sqrt(width * height), [8, 32] * 3, rtol=1e-6)
    np.testing.assert_allclose(height / width, np.repeat([0.5, 1, 2], 2), rtol=1e-6)
    np.testing.assert_allclose(made[:, :2], -made[:, 2:])
    rounded = anchors.shapes((8, 32), (0.5, 1, 2), rounded=True)
    assert rounded[0].tolist() == [-6, -3, 6, 3]
    assert np.abs(rounded - made).max() <= 0.5


def test_the_grid_goes_by_rows_columns_and_shapes():
    made = anchors.on_grid(
        anchors.shapes((2,), (1,)).repeat(2, 0), (2, 3), (8, 16), (4, 8)
    )
    assert made.shape == (12, 4)
    assert made[0].tolist() == made[1].tolist() == [7, 3, 9, 5]
    assert made[2].tolist() == [23, 3, 25, 5]
    assert made[6].tolist() == [7, 11, 9, 13]


@pytest.mark.parametrize("keep_best", [False, True])
def test_matches_are_those_of_a_loop(keep_best):
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        # Few values, so that many are equal.
        iou = rng.integers(0, 8, (5, 30)) / 10
        iou[rng.integers(5)] *= 0.3
        iou[rng.integers(5)] = 0
        valid = rng.random(5) < 0.7
        found = anchors.match(iou, valid, high=0.5, low=0.4, keep_best=keep_best)
        expected = []
        for n in range(30):
            rows = [m for m in range(5) if valid[m]]
            best = max(rows, key=lambda m: (iou[m, n], -m), default=None)
            value = iou[best, n] if rows else -1
            kept = keep_best and any(0 < iou[m, n] == iou[m].max() for m in rows)
            if value >= 0.5 or kept:
                expected.append(best)
            else:
                expected.append(anchors.NEGATIVE if value < 0.4 else anchors.BETWEEN)
        assert found.tolist() == expected
        seen |= set(expected)
    assert seen == {-2, -1, 0, 1, 2, 3, 4}


def test_without_a_true_box_every_anchor_is_negative():
    for low in (0.0, 0.4):
        found = anchors.match(np.ones((3, 4)), np.zeros(3, bool), low=low)
        assert found.tolist() == [anchors.NEGATIVE] * 4


def test_an_empty_set_of_boxes_or_anchors_is_legal():
    none = anchors.match(np.zeros((2, 0, 4)), np.zeros((2, 0), bool))
    assert none.tolist() == [[anchors.NEGATIVE] * 4] * 2
    assert anchors.match(np.zeros((3, 0)), np.ones(3, bool)).shape == (0,)


def test_a_box_that_overlaps_no_anchor_marks_none():
    found = anchors.match(np.zeros((1, 4)), np.ones(1, bool))
    assert found.tolist() == [anchors.NEGATIVE] * 4


def test_a_batch_is_its_images_one_by_one():
    rng = np.random.default_rng(1)
    iou, valid = rng.random((4, 3, 20)), rng.random((4, 3)) < 0.5
    together = anchors.match(iou, valid)
    for one, row, ok in zip(together, iou, valid, strict=True):
        np.testing.assert_array_equal(one, anchors.match(row, ok))


def test_refused_values_are_named():
    with pytest.raises(InputError, match="sizes is 0"):
        anchors.shapes((0,), (1,))
    with pytest.raises(InputError, match="ratios is -1"):
        anchors.shapes((8,), (-1,))
    with pytest.raises(InputError, match=r"low is 0\.6"):
        anchors.match(np.zeros((1, 1)), np.ones(1, bool), low=0.6)
