"""Counts of pixels, IoU, Dice, and the band at the boundary of a region."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import confusion_matrix

from fpn_jax.metrics import regions

CLASSES = 3


def case(seed=0, batch=4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(CLASSES, size=(batch, 6, 5))
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(CLASSES))
    return predicted, truth, rng.random(truth.shape) < 0.8


def found(metric, predicted, truth, counted, weight=None):
    counts = regions.counts(predicted, truth, CLASSES, counted)
    weight = jnp.ones(len(truth)) if weight is None else weight
    return metric.of(counts, weight).on_host()


def test_counts_are_those_of_a_confusion_matrix():
    predicted, truth, counted = case()
    counts = regions.counts(predicted, truth, CLASSES, counted)
    for row in range(len(truth)):
        matrix = confusion_matrix(
            truth[row][counted[row]],
            predicted[row][counted[row]],
            labels=range(CLASSES),
        )
        assert counts["intersection"][row].tolist() == np.diag(matrix).tolist()
        assert counts["truth"][row].tolist() == matrix.sum(1).tolist()
        assert counts["predicted"][row].tolist() == matrix.sum(0).tolist()


def test_mean_iou_and_dice_are_those_of_all_pixels_together():
    predicted, truth, counted = case()
    matrix = confusion_matrix(truth[counted], predicted[counted], labels=range(CLASSES))
    hits, total = np.diag(matrix), matrix.sum(0) + matrix.sum(1)
    iou = hits / (total - hits)
    arguments = predicted, truth, counted
    np.testing.assert_allclose(found(regions.Regions, *arguments).compute(), iou)
    np.testing.assert_allclose(found(regions.MeanIoU, *arguments).compute(), iou.mean())
    dice = 2 * iou / (1 + iou)
    np.testing.assert_allclose(
        found(regions.MeanDice, *arguments).compute(), dice.mean()
    )


def test_a_class_that_is_neither_there_nor_found_does_not_count():
    predicted = truth = np.zeros((1, 2, 2), int)
    counted = np.ones_like(truth, bool)
    assert found(regions.MeanIoU, predicted, truth, counted).compute() == 1
    # A class that is found without being there has the IoU 0.
    predicted = np.array([[[0, 0], [0, 2]]])
    np.testing.assert_allclose(
        found(regions.MeanIoU, predicted, truth, counted).compute(), (0.75 + 0) / 2
    )


def test_padding_and_uncounted_pixels_change_nothing():
    predicted, truth, counted = case()
    before = found(regions.Regions, predicted, truth, counted)
    other = np.where(counted, predicted, 1)
    weight = jnp.array([1.0, 1.0, 1.0, 1.0, 0.0])
    padded = [np.concatenate([x, x[:1]]) for x in (other, truth, counted)]
    after = found(regions.Regions, *padded, weight=weight)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_batches_merge_to_the_value_of_the_split():
    predicted, truth, counted = case()
    whole = found(regions.MeanIoU, predicted, truth, counted)
    halves = [
        found(regions.MeanIoU, predicted[part], truth[part], counted[part])
        for part in (slice(0, 1), slice(1, 4))
    ]
    assert halves[0].merge(halves[1]).compute() == whole.compute()


def test_nothing_there_and_nothing_found_is_1():
    zero = jnp.zeros((1, 1), jnp.int32)
    assert regions.overlap(zero, zero, zero) == 1
    assert regions.overlap(zero, zero + 1, zero) == 0
    counts = {"intersection": zero, "predicted": zero, "truth": zero}
    assert regions.RegionIoU.of(counts, jnp.ones(1)).on_host().compute() == 1
    assert np.isnan(regions.MeanIoU.of(counts, jnp.ones(1)).on_host().compute())


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_boundary_is_the_region_less_its_erosion(width):
    rng = np.random.default_rng(0)
    region = ndimage.binary_opening(rng.random((12, 15)) < 0.8, iterations=1)
    square = np.ones((2 * width + 1,) * 2)
    eroded = ndimage.binary_erosion(region, square)
    expected = region & ~eroded
    got = regions.boundary(jnp.asarray(region[None]), width)[0]
    np.testing.assert_array_equal(got, expected)
    assert expected.any()
