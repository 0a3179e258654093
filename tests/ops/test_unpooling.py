"""Unpooling, and the pooling that remembers where, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fpn_jax.errors import InputError
from fpn_jax.ops.pooling import max_pool
from fpn_jax.ops.unpooling import bed_of_nails, max_pool_with_indices, max_unpool


@pytest.mark.parametrize("factor", [1, 2, 3, (2, 1)])
def test_bed_of_nails_equals_its_definition(factor):
    rows, columns = (factor, factor) if isinstance(factor, int) else factor
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    expected = np.zeros((2, 3 * rows, 4 * columns, 2), np.float32)
    for i, j in np.ndindex(3, 4):
        expected[:, i * rows, j * columns] = x[:, i, j]
    y = bed_of_nails(jnp.asarray(x), factor)
    np.testing.assert_array_equal(y, expected)
    check_grads(jax.jit(lambda x: bed_of_nails(x, factor)), (x,), 1, ["rev"])
    assert bed_of_nails(jnp.ones((1, 1, 1, 1), jnp.bfloat16)).dtype == jnp.bfloat16


def naive_pool(x, w, s, pads):
    """Returns values and indices, where a later cell must be larger to win."""
    (top, bottom), (left, right) = pads
    _, height, width, _ = x.shape
    rows = (height + top + bottom - w) // s + 1
    columns = (width + left + right - w) // s + 1
    values = np.full((len(x), rows, columns, x.shape[3]), -np.inf, x.dtype)
    indices = np.zeros(values.shape, int)
    for b, i, j, c in np.ndindex(values.shape):
        for a, e in np.ndindex(w, w):
            row, column = i * s - top + a, j * s - left + e
            inside = 0 <= row < height and 0 <= column < width
            if inside and x[b, row, column, c] > values[b, i, j, c]:
                values[b, i, j, c] = x[b, row, column, c]
                indices[b, i, j, c] = row * width + column
    return values, indices


WINDOWS = [
    (2, 2, "valid", ((0, 0), (0, 0))),
    (2, 2, "same", ((0, 1), (0, 0))),
    (3, 2, "same", ((1, 1), (0, 1))),
    (3, 1, 1, ((1, 1), (1, 1))),
    (2, 3, "valid", ((0, 0), (0, 0))),
]


@pytest.mark.parametrize(("window", "stride", "padding", "pads"), WINDOWS)
def test_pool_with_indices_equals_its_definition(window, stride, padding, pads):
    # Few values, so that windows have ties.
    x = np.random.default_rng(0).integers(-3, 1, (2, 7, 6, 3)).astype(np.float32)
    pool = jax.jit(lambda x: max_pool_with_indices(x, window, stride, padding))
    values, indices = pool(x)
    expected, where = naive_pool(x, window, stride, pads)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(indices, where)
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(
        values, max_pool(jnp.asarray(x), window, stride, padding)
    )


def test_padding_never_wins_and_not_a_number_shows():
    x = jnp.full((1, 3, 3, 1), -jnp.inf)
    values, indices = jax.jit(lambda x: max_pool_with_indices(x, 3, 2, 1))(x)
    np.testing.assert_array_equal(values, np.full((1, 2, 2, 1), -np.inf))
    np.testing.assert_array_equal(indices.ravel(), [0, 1, 3, 4])
    x = x.at[0, 1, 1].set(jnp.nan)
    values, indices = jax.jit(lambda x: max_pool_with_indices(x, 3))(x)
    assert np.isnan(values).all()
    assert indices.item() == 4


@pytest.mark.parametrize(("window", "stride", "padding", "pads"), WINDOWS)
def test_unpool_puts_every_maximum_back(window, stride, padding, pads):
    x = np.random.default_rng(1).normal(size=(2, 7, 6, 3)).astype(np.float32)
    pool = jax.jit(lambda x: max_pool_with_indices(x, window, stride, padding))
    values, indices = pool(x)
    expected = np.zeros_like(x)
    for b, i, j, c in np.ndindex(values.shape):
        expected[b].reshape(-1, 3)[indices[b, i, j, c], c] = values[b, i, j, c]
    y = max_unpool(values, indices, (7, 6))
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    half = max_unpool(values.astype(jnp.bfloat16), indices, (7, 6))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, jnp.asarray(expected).astype(jnp.bfloat16))


def test_values_that_share_a_cell_are_averaged():
    x = jnp.array([1.0, 5.0, 7.0]).reshape(1, 1, 3, 1)
    indices = jnp.array([2, 0, 2]).reshape(x.shape)
    y = max_unpool(x, indices, (2, 2))
    assert y.ravel().tolist() == [5.0, 0.0, 4.0, 0.0]
    check_grads(jax.jit(lambda x: max_unpool(x, indices, (2, 2))), (x,), 1, ["rev"])


def test_gradients():
    x = jax.random.permutation(jax.random.key(0), jnp.arange(24.0)).reshape(1, 4, 6, 1)
    check_grads(lambda x: max_pool_with_indices(x, 3, 2, "same")[0], (x,), 1, eps=1e-2)
    # Of a tie the first takes the gradient.
    tied = jax.jit(jax.grad(lambda x: max_pool_with_indices(x, 2)[0].sum()))
    grad = tied(jnp.ones((1, 2, 2, 1)))
    assert grad.ravel().tolist() == [1.0, 0.0, 0.0, 0.0]


def test_indices_that_do_not_match_are_refused():
    x = jnp.ones((1, 2, 2, 1))
    indices = jnp.array([0, 3, 12, 15]).reshape(x.shape)
    with pytest.raises(ValueError, match=r"indices are int32 \(1, 1, 2, 1\)"):
        max_unpool(x, indices[:, :1], (4, 4))
    with pytest.raises(ValueError, match="indices are float32"):
        max_unpool(x, x, (4, 4))
    for size, shift in [((3, 4), 0), ((4, 4), -1)]:
        with pytest.raises(ValueError, match="indices go from"):
            max_unpool(x, indices + shift, size)
    with pytest.raises(InputError, match="size is"):
        max_unpool(x, indices, (0, 4))
    with pytest.raises(InputError, match="factor is 0"):
        bed_of_nails(x, 0)


def test_indices_outside_are_dropped_where_values_are_unknown():
    x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    indices = jnp.array([-1, 1, 4]).reshape(x.shape)
    y = jax.jit(max_unpool, static_argnums=2)(x, indices, (2, 2))
    assert y.ravel().tolist() == [0.0, 2.0, 0.0, 0.0]
