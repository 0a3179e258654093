"""Pooling over windows and over whole maps, as functions of arrays."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Padding = str | int | Sequence[tuple[int, int]]
"""`"SAME"`, `"VALID"`, cells on every side, or `(before, after)` for height and width.

With "SAME" the result is `ceil(size / stride)` large, with "VALID" and with cells `p`
on every side it is `(size + 2 * p - window) // stride + 1` large.
"""


def max_pool(
    x: jax.Array, window: int, stride: int, padding: Padding = "VALID"
) -> jax.Array:
    """Returns the largest value of every window; padding never wins.

    Args:
      x: Maps, `[B, H, W, C]`, floating.
      window: Height and width of a window, in cells.
      stride: Step from one window to the next, in cells.
      padding: See `Padding`.

    Returns:
      Maps, `[B, H', W', C]`, of the input's type.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> max_pool(x, window=2, stride=2, padding="SAME")[0, :, :, 0].tolist()
      [[4.0, 5.0], [7.0, 8.0]]
    """
    return _reduce(x, -jnp.inf, jax.lax.max, window, stride, padding)


def average_pool(
    x: jax.Array, window: int, stride: int, padding: Padding = "VALID"
) -> jax.Array:
    """Returns the mean of every window, over the cells inside the map only.

    Args:
      x: Maps, `[B, H, W, C]`, floating.
      window: Height and width of a window, in cells.
      stride: Step from one window to the next, in cells.
      padding: See `Padding`.

    Returns:
      Maps, `[B, H', W', C]`, of the input's type.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> average_pool(x, window=2, stride=2, padding="SAME")[0, :, :, 0].tolist()
      [[2.0, 3.5], [6.5, 8.0]]
    """
    total = _reduce(x.astype(jnp.float32), 0.0, jax.lax.add, window, stride, padding)
    inside = jnp.ones((1, *x.shape[1:3], 1), jnp.float32)
    count = _reduce(inside, 0.0, jax.lax.add, window, stride, padding)
    return (total / count).astype(x.dtype)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Returns the mean of every channel over the whole map, summed in float32.

    Args:
      x: Maps, `[B, H, W, C]`.

    Returns:
      `[B, C]`, of the input's type.

    Example:
      >>> global_average_pool(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
      [[1.5]]
    """
    return x.mean(axis=(1, 2), dtype=jnp.float32).astype(x.dtype)


def global_max_pool(x: jax.Array) -> jax.Array:
    """Returns the largest value of every channel over the whole map.

    Args:
      x: Maps, `[B, H, W, C]`.

    Returns:
      `[B, C]`, of the input's type.

    Example:
      >>> global_max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
      [[3.0]]
    """
    return x.max(axis=(1, 2))


def _reduce(x, initial, operation, window, stride, padding):
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    if not isinstance(padding, str):
        padding = ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(
        x,
        initial,
        operation,
        (1, window, window, 1),
        (1, stride, stride, 1),
        padding,
    )
