"""Resampling along an axis: every output cell is a weighted sum of input cells."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.ops.kernels.linear import linear_map

Kernel = Callable[[np.ndarray], np.ndarray]
"""The weight of a cell, by its distance from the output cell's centre, in cells."""

# The gradient has `factor × taps` slices.
_LARGEST_FACTOR = 8


def resample(
    x: jax.Array,
    axis: int,
    length: int,
    kernel: Kernel,
    support: int,
    *,
    antialias: bool,
    align_corners: bool,
) -> jax.Array:
    """Returns maps of another length along one axis.

    In general the axis is multiplied by a matrix of weights. Where the length grows by
    a whole factor up to eight, and neither option is on, all cells have the same few
    weights and the matrix is nearly empty: a CPU then computes the result tap by tap.

    Args:
      x: Maps, `[B, H, W, C]`, float32 or wider.
      axis: 1 or 2.
      length: Cells of the result along the axis.
      kernel: See `Kernel`.
      support: Distance beyond which the kernel is 0, in cells.
      antialias: Whether the kernel is stretched where the result is smaller. The
        kernel then ends at the border; without it, the border cells are repeated.
      align_corners: Whether corner cells fall on corner cells.
    """
    n = x.shape[axis]
    if length == n:
        return x
    product = partial(
        _product,
        weights=_weights(n, length, kernel, support, antialias, align_corners),
        axis=axis,
    )
    factor, rest = divmod(length, n)
    if rest or factor > _LARGEST_FACTOR or antialias or align_corners:
        return product(x)
    taps = _by_taps(_weights_of_taps(factor, kernel, support), axis)
    return jax.lax.platform_dependent(x, cpu=taps, default=product)


def _product(x: jax.Array, weights: np.ndarray, axis: int) -> jax.Array:
    return jnp.einsum(
        {1: "mh,bhwc->bmwc", 2: "mw,bhwc->bhmc"}[axis],
        weights.astype(x.dtype),
        x,
        precision=jax.lax.Precision.HIGHEST,
    )


def _by_taps(weights: np.ndarray, axis: int) -> Callable[[jax.Array], jax.Array]:
    """Returns `_taps` with a gradient that reads slices instead of scattering."""
    forward = partial(_taps, weights=weights, axis=axis)
    transpose = partial(_taps_transposed, weights=weights, axis=axis)
    return partial(linear_map, forward, transpose)


def _taps(x: jax.Array, weights: np.ndarray, axis: int) -> jax.Array:
    """Computes `y[factor * i + j] = Σ_t weights[t, j] * x[i + t - reach]`."""
    n, (count, factor) = x.shape[axis], weights.shape
    padded = _extended(x, axis, count // 2)
    along = [1] * (x.ndim + 1)
    along[axis + 1] = factor
    total = sum(
        jnp.expand_dims(jax.lax.slice_in_dim(padded, t, t + n, axis=axis), axis + 1)
        * weights[t].reshape(along).astype(x.dtype)
        for t in range(count)
    )
    return total.reshape(*x.shape[:axis], n * factor, *x.shape[axis + 1 :])


def _extended(x: jax.Array, axis: int, reach: int) -> jax.Array:
    border = [(0, 0)] * x.ndim
    border[axis] = (reach, reach)
    return jnp.pad(x, border, mode="edge")


def _taps_transposed(y: jax.Array, weights: np.ndarray, axis: int) -> jax.Array:
    """Computes `x[i] = Σ_tj weights[t, j] * y[factor * (i - t + reach) + j]`."""
    count, factor = weights.shape
    n, reach = y.shape[axis] // factor, count // 2
    y = y.reshape(*y.shape[:axis], n, factor, *y.shape[axis + 1 :])
    border = [(0, 0)] * y.ndim
    border[axis] = (count - 1, count - 1)
    y = jnp.pad(y, border)
    total = 0
    # Slice by slice: a sum over an axis of positions takes 3 to 14 times as long.
    for t, j in np.argwhere(weights):
        begin = count - 1 - t
        cells = jax.lax.slice_in_dim(y, begin, begin + n + 2 * reach, axis=axis)
        cells = jax.lax.index_in_dim(cells, j, axis + 1, keepdims=False)
        total += cells * weights[t, j].astype(y.dtype)
    # Gradients of the repeated border cells return to the border cells.
    extended = partial(_extended, axis=axis, reach=reach)
    like = jax.lax.slice_in_dim(total, 0, n, axis=axis)
    (x,) = jax.vjp(extended, like)[1](total)
    return x


def _weights_of_taps(factor: int, kernel: Kernel, support: int) -> np.ndarray:
    """Returns weights `[2 * support + 1, factor]`: input cells by output position."""
    centres = (np.arange(factor) + 0.5) / factor - 0.5
    weights = kernel(np.arange(-support, support + 1)[:, None] - centres)
    return weights / weights.sum(axis=0)


def _weights(
    n: int,
    m: int,
    kernel: Kernel,
    support: int,
    antialias: bool,
    align_corners: bool,
) -> np.ndarray:
    """Returns `[m, n]`: row `i` weighs `n` input cells for output cell `i`."""
    if align_corners:
        centres = np.arange(m) * ((n - 1) / max(m - 1, 1))
    else:
        centres = (np.arange(m) + 0.5) * (n / m) - 0.5
    stretch = max(n / m, 1.0) if antialias else 1.0
    reach = int(np.ceil(support * stretch))
    offsets = np.arange(-reach, reach + 2)
    cells = np.floor(centres).astype(int)[:, None] + offsets
    weights = kernel((cells - centres[:, None]) / stretch)
    if antialias:
        weights = np.where((cells >= 0) & (cells < n), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m)[:, None], cells.clip(0, n - 1)), weights)
    return matrix
