"""Losses of class maps: loops in NumPy, limits, and the pixels that are ignored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops import pixel_losses
from fpn_jax.ops.pixel_losses import IGNORE, LOSSES

every_loss = pytest.mark.parametrize("name", LOSSES)
SHAPE = (3, 5, 7)
CLASSES = 3


def case(seed=0, classes=CLASSES):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (*SHAPE, classes)).astype(np.float32)
    mask = rng.integers(classes, size=SHAPE)
    mask[rng.random(SHAPE) < 0.3] = IGNORE
    return logits, mask


def softmax(x):
    exponential = np.exp(x - x.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def looped_cross_entropy(logits, mask):
    terms = [
        -np.log(softmax(row.astype(np.float64))[label])
        for row, label in zip(logits, mask, strict=True)
    ]
    return np.mean(terms)


def looped_focal(logits, mask, gamma=2.0):
    total = []
    for row, label in zip(logits.astype(np.float64), mask, strict=True):
        p = 1 / (1 + np.exp(-row))
        p[np.arange(len(p)) != label] = 1 - p[np.arange(len(p)) != label]
        total.append((-((1 - p) ** gamma) * np.log(p)).mean())
    return np.mean(total)


def looped_dice(logits, mask):
    p, losses = softmax(logits.astype(np.float64)), []
    for label in range(logits.shape[-1]):
        y = mask == label
        score = 2 * p[y, label].sum() / (p[:, label].sum() + y.sum())
        losses.append(1 - score if y.any() else 0.0)
    return np.mean(losses)


def looped_lovasz(logits, mask):
    """Adds the pixels one by one, in the order of their errors."""
    p, losses = softmax(logits.astype(np.float64)), []
    for label in np.unique(mask):
        y = mask == label
        error = np.abs(y - p[:, label])
        loss, before, seen = 0.0, 0.0, np.zeros(len(y), bool)
        for index in np.argsort(-error, kind="stable"):
            seen[index] = True
            intersection = (y & ~seen).sum()
            union = (y | seen).sum()
            jaccard = 1 - intersection / union
            loss += error[index] * (jaccard - before)
            before = jaccard
        losses.append(loss)
    return np.mean(losses)


LOOPS = {
    "cross_entropy": looped_cross_entropy,
    "focal": looped_focal,
    "dice": looped_dice,
    "lovasz": looped_lovasz,
}


@every_loss
def test_the_value_is_that_of_a_loop_over_the_counted_pixels(name):
    logits, mask = case()
    found = LOSSES[name](logits, mask)
    assert found.dtype == jnp.float32
    for row in range(len(mask)):
        counted = mask[row] != IGNORE
        expected = LOOPS[name](logits[row][counted], mask[row][counted])
        np.testing.assert_allclose(found[row], expected, rtol=2e-6)


@every_loss
def test_an_ignored_pixel_changes_neither_value_nor_gradient(name):
    logits, mask = case()
    ignored = (mask == IGNORE)[..., None]
    other = np.where(
        ignored, np.random.default_rng(9).normal(0, 30, logits.shape), logits
    )

    def both(x):
        return jax.value_and_grad(lambda y: LOSSES[name](y, mask).sum())(x)

    value, gradient = both(jnp.asarray(logits))
    value2, gradient2 = both(jnp.asarray(other, jnp.float32))
    np.testing.assert_allclose(value, value2, rtol=1e-6)
    np.testing.assert_allclose(gradient, gradient2, atol=1e-7)
    assert not np.any(np.where(ignored, gradient, 0))
    assert np.isfinite(gradient).all()


@every_loss
def test_a_mask_that_is_ignored_everywhere_has_loss_and_gradient_0(name):
    logits, _ = case()
    mask = np.full(SHAPE, IGNORE)
    value, gradient = jax.value_and_grad(lambda x: LOSSES[name](x, mask).sum())(logits)
    assert value == 0
    assert not np.any(gradient)


@every_loss
def test_a_sure_and_right_prediction_costs_nothing_and_a_wrong_one_much(name):
    mask = np.random.default_rng(0).integers(CLASSES, size=SHAPE)
    sure = 40 * np.eye(CLASSES, dtype=np.float32)[mask] - 20
    right = LOSSES[name](sure, mask)
    wrong = LOSSES[name](-sure, mask)
    np.testing.assert_allclose(right, 0, atol=1e-5)
    assert (wrong > 0.5).all()


@every_loss
def test_bfloat16_logits_are_computed_in_float32(name):
    logits, mask = case()
    logits = jnp.asarray(logits, jnp.bfloat16)
    found = LOSSES[name](logits, mask)
    expected = LOSSES[name](logits.astype(jnp.float32), mask)
    np.testing.assert_array_equal(found, expected)


def test_the_options_of_focal_and_dice():
    logits, mask = case()
    plain = pixel_losses.focal(logits, mask, gamma=0.0)
    halved = pixel_losses.focal(logits, mask, gamma=0.0, alpha=0.5)
    np.testing.assert_allclose(2 * halved, plain, rtol=1e-6)
    # With a very large `smooth`, every class that is shown has the score 1.
    smooth = pixel_losses.dice(logits, mask, smooth=1e9)
    np.testing.assert_allclose(smooth, 0, atol=1e-5)
