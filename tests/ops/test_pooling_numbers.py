"""Pooling at the ends of the floating range, its random draws, and its refusals."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import errors
from fpn_jax.ops import pooling, weighted_pooling


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1, 1e20, 1e30])
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (partial(pooling.lp_pool, p=8), (513 / 3) ** (1 / 8)),
        (pooling.l2_pool, 1.0),
    ],
)
@pytest.mark.parametrize("window", [None, (1, 3)])
def test_no_power_over_or_underflows(function, expected, scale, window):
    x = scale * jnp.array([1.0, 2.0, 2.0]).reshape(1, 1, 3, 1)
    pool = jax.jit(jax.value_and_grad(lambda x: function(x, window).sum()))
    y, gradient = pool(x)
    np.testing.assert_allclose(y, scale * expected, rtol=1e-5)
    _, unscaled = pool(x / scale)
    assert (unscaled > 0).all()
    np.testing.assert_allclose(gradient, unscaled, rtol=1e-4)


@pytest.mark.parametrize("function", [pooling.l2_pool, partial(pooling.lp_pool, p=0.5)])
def test_infinity_is_the_mean_of_a_window_that_holds_it(function):
    x = jnp.array([1.0, -np.inf, 0.0, 4.0]).reshape(1, 1, 4, 1)
    y = np.asarray(jax.jit(lambda x: function(x, (1, 2)))(x)).ravel()
    assert y[0] == np.inf
    assert 0 < y[1] < 4


def test_softmax_of_a_window_far_below_the_rest_of_the_map():
    x = jnp.array([1000.0, 1000.0, 0.0, 1.0]).reshape(1, 1, 4, 1)
    y = weighted_pooling.soft_pool(x, (1, 2)).ravel()
    np.testing.assert_allclose(y, [1000, math.e / (1 + math.e)], rtol=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ("softmax", np.exp([0.0, 1, 2, -1]) / np.exp([0.0, 1, 2, -1]).sum()),
        ("proportional", np.array([0, 1, 2, 0]) / 3),
    ],
)
def test_draws_are_as_frequent_as_they_are_probable(probabilities, expected):
    values = np.array([0.0, 1, 2, -1], np.float32)
    x = jnp.broadcast_to(values.reshape(1, 2, 2, 1), (4000, 2, 2, 1))
    key = jax.random.key(9)
    draw = partial(weighted_pooling.stochastic_pool, probabilities=probabilities)
    draw = jax.jit(draw)
    drawn = draw(x, key=key)
    np.testing.assert_array_equal(drawn, draw(x, key=key))
    frequencies = (np.asarray(drawn) == values).mean(axis=0)
    # Four standard deviations of 4000 draws.
    np.testing.assert_allclose(frequencies, expected, atol=0.032)
    np.testing.assert_allclose(draw(x)[0, 0], (expected * values).sum(), rtol=1e-5)


def test_padding_is_never_drawn():
    x = jnp.full((50, 3, 3, 2), -5.0)
    for probabilities in weighted_pooling.PROBABILITIES:
        draw = partial(
            weighted_pooling.stochastic_pool,
            window=3,
            stride=1,
            padding=1,
            probabilities=probabilities,
        )
        assert (jax.jit(draw)(x, key=jax.random.key(10)) == -5).all()


def test_the_gradient_of_a_draw_goes_to_the_cell_drawn():
    x = jax.random.normal(jax.random.key(11), (1, 4, 4, 1))
    key = jax.random.key(12)
    draw = partial(weighted_pooling.stochastic_pool, window=2, key=key)
    y, gradient = jax.jit(jax.value_and_grad(lambda x: draw(x).sum()))(x)
    assert set(np.unique(gradient)) == {0, 1}
    assert gradient.sum() == 4
    np.testing.assert_allclose((gradient * x).sum(), y, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: pooling.k_max_pool(x, 2, k=0), ["k is 0", "at least 1"]),
        (lambda x: pooling.k_max_pool(x, 2, k=2.5), ["k is 2.5", "whole number"]),
        (lambda x: pooling.k_max_pool(x, 2, k=5), ["k is 5", "4", "window 2"]),
        (lambda x: pooling.k_max_pool(x, k=26), ["k is 26", "25", "whole map"]),
        (lambda x: pooling.lp_pool(x, 2, p=0), ["p is 0", "above 0"]),
        (lambda x: pooling.lp_pool(x, 2, p=np.float32(-1)), ["p is -1.0"]),
        (lambda x: pooling.lp_pool(x, 2, p=jnp.array(-1.0)), ["p is -1.0"]),
        (lambda x: pooling.lp_pool(x, 2, p=math.inf), ["p is inf", "'max'"]),
        (
            lambda x: pooling.mixed_pool(x, max_share=1.5),
            ["max_share is 1.5", "[0, 1]"],
        ),
        (
            lambda x: pooling.mixed_pool(x, max_share=np.float64(-1)),
            ["max_share is -1.0"],
        ),
        (
            lambda x: weighted_pooling.stochastic_pool(x, probabilities="soft"),
            ["probabilities 'soft'", "softmax", "proportional"],
        ),
        (lambda x: pooling.median_pool(x, 6), ["window is 6", "5 × 5"]),
    ],
)
def test_what_a_pooling_refuses(call, words):
    with pytest.raises(errors.InputError) as raised:
        call(jnp.zeros((1, 5, 5, 1)))
    assert all(word in str(raised.value) for word in words), raised.value
