"""Spatial pyramids against a loop over bins."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import errors
from fpn_jax.ops import pooling, weighted_pooling
from fpn_jax.ops.kernels.windows import windows
from fpn_jax.ops.spatial_pyramid import (
    adaptive_average_pool,
    adaptive_pool,
    spatial_pyramid_pool,
)

SIZES = [(7, 5), (3, 9)]


def cells(r):
    return r.reshape(len(r), -1, r.shape[-1])


def soft(r, logits=None):
    weights = np.exp(cells(r if logits is None else logits))
    return (weights * cells(r)).sum(axis=1) / weights.sum(axis=1)


# A pooling and what it does with the cells of one bin, `[B, h, w, C]`.
POOLS = {
    "max": (pooling.max_pool, lambda r: r.max(axis=(1, 2))),
    "min": (pooling.min_pool, lambda r: r.min(axis=(1, 2))),
    "average": (pooling.average_pool, lambda r: r.mean(axis=(1, 2))),
    "median": (pooling.median_pool, lambda r: np.median(r, axis=(1, 2))),
    # Bins of small maps hold fewer than three cells.
    "k_max": (
        partial(pooling.k_max_pool, k=3),
        lambda r: np.sort(cells(r), axis=1)[:, -3:].mean(axis=1),
    ),
    "l2": (
        pooling.l2_pool,
        lambda r: np.sqrt((r**2).sum(axis=(1, 2))) / cells(r).shape[1],
    ),
    "lp": (
        partial(pooling.lp_pool, p=3),
        lambda r: (np.abs(r) ** 3).mean(axis=(1, 2)) ** (1 / 3),
    ),
    "mixed": (
        partial(pooling.mixed_pool, max_share=0.3),
        lambda r: 0.3 * r.max(axis=(1, 2)) + 0.7 * r.mean(axis=(1, 2)),
    ),
    "soft": (weighted_pooling.soft_pool, soft),
    "stochastic": (weighted_pooling.stochastic_pool, soft),
    "lip": (
        lambda x, window: weighted_pooling.local_importance_pool(
            x, window, logits=jnp.cos(x)
        ),
        lambda r: soft(r, np.cos(r)),
    ),
}


def naive(x, bins, reduce):
    (height, width), (rows, columns) = x.shape[1:3], bins
    result = np.zeros((len(x), rows, columns, x.shape[-1]))
    for i, j in np.ndindex(rows, columns):
        bin_rows = slice(i * height // rows, -(-(i + 1) * height // rows))
        bin_columns = slice(j * width // columns, -(-(j + 1) * width // columns))
        result[:, i, j] = reduce(x[:, bin_rows, bin_columns])
    return result


@pytest.mark.parametrize("name", POOLS)
def test_every_pooling_over_bins_equals_a_loop(name):
    pool, reduce = POOLS[name]
    divisions = [(4, 4), (2, 3)]
    pyramid = jax.jit(
        lambda maps: [spatial_pyramid_pool(x, divisions, pool) for x in maps]
    )
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, *size, 3)).astype(np.float32) for size in SIZES]
    for x, actual in zip(maps, pyramid(maps), strict=True):
        expected = [naive(x, bins, reduce).reshape(2, -1) for bins in divisions]
        expected = np.concatenate(expected, axis=1)
        assert actual.shape == (2, (16 + 6) * 3)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (8, 8), (1, 1), (3, 40)])
def test_the_length_is_fixed_and_the_type_kept(size):
    x = jnp.zeros((2, *size, 5), jnp.bfloat16)
    y = jax.eval_shape(spatial_pyramid_pool, x)
    assert (y.shape, y.dtype) == ((2, 21 * 5), jnp.bfloat16)
    y = jax.eval_shape(lambda x: adaptive_average_pool(x, (6, 2)), x)
    assert (y.shape, y.dtype) == ((2, 6, 2, 5), jnp.bfloat16)


def test_the_order_is_division_row_column_channel():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    y = spatial_pyramid_pool(x, bins=(1, 2))
    assert y.tolist() == [[6, 7, 0, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("bins", [(2, 3), (7, 7), (3, 9)])
def test_the_means_along_the_axes_equal_those_of_the_windows(bins):
    x = np.random.default_rng(1).normal(size=(2, 7, 5, 3)).astype(np.float32)

    def by_windows(x, window):
        values, inside = windows(x, window)
        values = jnp.where(inside[..., None], values, 0)
        return values.sum(axis=3) / inside.sum(axis=-1)[..., None]

    both = jax.jit(
        lambda x: (adaptive_average_pool(x, bins), adaptive_pool(x, bins, by_windows))
    )
    np.testing.assert_allclose(*both(x), rtol=1e-5, atol=1e-6)


def test_bins_finer_than_the_map_repeat_its_cells():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    for pool in (pooling.max_pool, pooling.average_pool):
        y = adaptive_pool(x, 4, pool)[0, :, :, 0].tolist()
        assert y == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("bins", [0, (1, 0), (1, 2, 3), 1.5])
def test_bins_that_are_none_are_refused(bins):
    x = jnp.zeros((1, 4, 4, 1))
    for call in (
        lambda: adaptive_average_pool(x, bins),
        lambda: spatial_pyramid_pool(x, (2, bins)),
    ):
        with pytest.raises(errors.InputError, match=r"bins is .*at least 1"):
            call()
