"""Upsampling, as functions of arrays."""

import jax
import jax.numpy as jnp
import numpy as np


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes maps by copying cells: output cell `i` is input cell `i * n // m`.

    `n` and `m` are the input's and the output's length. From a level of a pyramid to
    the next finer one this is cell `i // 2` at even and odd lengths alike, the cell
    whose stride covers it. `jax.image.resize` copies from `(i + 1/2) * n / m` instead,
    which shifts the middle of an odd map by a cell.

    Args:
      x: Maps, `[B, H, W, C]`.
      size: Height and width of the result, in cells.

    Returns:
      Maps, `[B, *size, C]`, of the input's type.

    Example:
      >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
      >>> resize_nearest(x, (1, 5))[0, 0, :, 0].tolist()
      [0.0, 0.0, 1.0, 1.0, 2.0]
    """
    for axis, length in zip((1, 2), size, strict=True):
        x = _resize_axis(x, axis, length)
    return x


def _resize_axis(x: jax.Array, axis: int, length: int) -> jax.Array:
    positions = np.arange(length)
    sources = positions * x.shape[axis] // length
    repeats = -(-length // x.shape[axis])
    if (sources == positions // repeats).all():
        # A broadcast, whose gradient is a sum; a gather's gradient is a scatter, which
        # is several times slower.
        x = jnp.repeat(x, repeats, axis)
        return jax.lax.slice_in_dim(x, 0, length, axis=axis)
    return jnp.take(x, sources, axis)
