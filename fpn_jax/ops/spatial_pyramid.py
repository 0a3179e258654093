"""Spatial pyramids: maps of any size pooled to a fixed number of values."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from fpn_jax.ops.kernels.windows import Bins, Size, Window, check_size
from fpn_jax.ops.pooling import average_pool, max_pool

Pool = Callable[[jax.Array, Window], jax.Array]
"""A function of `fpn_jax.ops.pooling`, with its own arguments fixed by a partial."""


def adaptive_pool(x: jax.Array, bins: Size, pool: Pool) -> jax.Array:
    """Returns maps of a fixed size, in which every cell is a pooled bin of the input.

    Args:
      x: Maps, `[B, H, W, C]`, of any size; see `fpn_jax.ops.kernels.windows.Bins`.
      bins: Height and width of the result; one number for both.
      pool: See `Pool`.

    Returns:
      `[B, *bins, C]`, of the input's type.

    Raises:
      InputError: A number of bins is below 1.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> adaptive_pool(x, 2, max_pool)[0, :, :, 0].tolist()
      [[4.0, 5.0], [7.0, 8.0]]
    """
    return pool(x, Bins(*check_size("bins", bins)))


def adaptive_average_pool(x: jax.Array, bins: Size) -> jax.Array:
    """Returns the mean of every bin.

    Args:
      x: Maps, `[B, H, W, C]`, of any size; see `fpn_jax.ops.kernels.windows.Bins`.
      bins: Height and width of the result; one number for both.

    Returns:
      `[B, *bins, C]`, of the input's type.

    Raises:
      InputError: A number of bins is below 1.

    Example:
      >>> x = jnp.arange(5.0).reshape(1, 1, 5, 1)
      >>> adaptive_average_pool(x, (1, 2))[0, 0, :, 0].tolist()
      [1.0, 3.0]
    """
    return adaptive_pool(x, bins, average_pool)


def spatial_pyramid_pool(
    x: jax.Array, bins: Sequence[Size] = (4, 2, 1), pool: Pool = max_pool
) -> jax.Array:
    """Returns the bins of several divisions of a map as one vector.

    Spatial pyramid pooling (He et al., arXiv 1406.4729). The order is fixed: the
    divisions as given, in each the bins row by row, in each bin the channels.

    Args:
      x: Maps, `[B, H, W, C]`, of any size, also smaller than the bins.
      bins: Height and width of every division; one number for both.
      pool: See `Pool`.

    Returns:
      `[B, Σ height · width · C]`, of the input's type; `Σ bins² · C` of square ones.

    Raises:
      InputError: A number of bins is below 1.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
      >>> spatial_pyramid_pool(x, bins=(2, 1)).tolist()
      [[0.0, 1.0, 2.0, 3.0, 3.0]]
    """
    maps = [adaptive_pool(x, size, pool) for size in bins]
    return jnp.concatenate([jax.lax.collapse(y, 1) for y in maps], axis=1)
