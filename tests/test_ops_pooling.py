"""Pooling against a plain loop over windows."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops import pooling

CASES = [
    (window, stride, padding)
    for window, stride in [(1, 2), (2, 2), (3, 2), (2, 3), (3, 1)]
    for padding in ["SAME", "VALID", window // 2, ((0, window // 2), (window // 2, 0))]
]
SIZES = [(6, 6), (7, 9), (5, 8)]


def sides(length, window, stride, padding, axis):
    if padding == "VALID":
        return 0, 0
    if padding == "SAME":
        missing = (math.ceil(length / stride) - 1) * stride + window - length
        before = max(missing, 0) // 2
        return before, max(missing, 0) - before
    return (padding, padding) if isinstance(padding, int) else padding[axis]


def naive(x, window, stride, padding, reduce):
    starts = []
    for axis, length in enumerate(x.shape[1:3]):
        before, after = sides(length, window, stride, padding, axis)
        starts.append(range(-before, length + after - window + 1, stride))
    result = np.zeros((x.shape[0], len(starts[0]), len(starts[1]), x.shape[3]))
    for (i, top), (j, left) in itertools.product(*map(enumerate, starts)):
        rows = slice(max(top, 0), top + window)
        columns = slice(max(left, 0), left + window)
        result[:, i, j] = reduce(x[:, rows, columns], axis=(1, 2))
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("function", "reduce"),
    [(pooling.max_pool, np.max), (pooling.average_pool, np.mean)],
)
def test_windows_equal_a_loop(function, reduce, size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32) - 5
    for window, stride, padding in CASES:
        actual = function(jnp.asarray(x), window, stride, padding)
        expected = naive(x, window, stride, padding, reduce)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("function", [pooling.max_pool, pooling.average_pool])
def test_type_is_kept(function):
    x = jnp.ones((1, 5, 5, 2), jnp.bfloat16)
    assert function(x, 2, 2, "SAME").dtype == jnp.bfloat16


def test_average_of_many_bfloat16_cells_is_exact_to_their_precision():
    x = jnp.ones((1, 64, 64, 1), jnp.bfloat16)
    assert pooling.average_pool(x, 64, 64)[0, 0, 0, 0] == 1
    assert pooling.global_average_pool(x)[0, 0] == 1


def test_global_pooling():
    x = np.random.default_rng(1).normal(size=(2, 5, 7, 3)).astype(np.float32)
    average = pooling.global_average_pool(jnp.asarray(x))
    np.testing.assert_allclose(average, x.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    largest = pooling.global_max_pool(jnp.asarray(x))
    np.testing.assert_array_equal(largest, x.max(axis=(1, 2)))


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, "SAME")])
@pytest.mark.parametrize("size", SIZES)
def test_gradient_goes_to_the_first_largest_cell(window, stride, padding, size):
    # Whole numbers, so that most windows have ties.
    rng = np.random.default_rng(2)
    x = rng.integers(0, 3, (2, *size, 3)).astype(np.float32)
    y, pullback = jax.vjp(
        lambda x: pooling.max_pool(x, window, stride, padding), jnp.asarray(x)
    )
    upstream = rng.normal(size=y.shape).astype(np.float32)
    expected = np.zeros_like(x)
    tops, lefts = (
        sides(length, window, stride, padding, axis)[0]
        for axis, length in enumerate(size)
    )
    for b, i, j, c in np.ndindex(*y.shape):
        top, left = i * stride - tops, j * stride - lefts
        best = max(
            (
                (row, column)
                for row in range(max(top, 0), min(top + window, size[0]))
                for column in range(max(left, 0), min(left + window, size[1]))
            ),
            key=lambda cell: x[b, *cell, c],
        )
        expected[b, *best, c] += upstream[b, i, j, c]
    np.testing.assert_allclose(pullback(jnp.asarray(upstream))[0], expected, atol=1e-5)
