"""Largest or smallest cells of windows; the first of equal cells gets the gradient."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.ops.kernels import taps
from fpn_jax.ops.kernels.linear import linear_map
from fpn_jax.ops.kernels.taps import Pair


def sliding_extremes(
    x: jax.Array,
    larger: bool,
    window: Pair,
    stride: Pair,
    padding: Sequence[Pair],
) -> jax.Array:
    """Returns the largest or the smallest cell of every window.

    The first of equal cells gets the gradient. On a CPU the position of the extreme is
    stored for the gradient, because XLA searches for it again, which is 12 to 27 times
    slower; other devices use XLA's operation.

    Args:
      x: Maps, `[B, H, W, C]`, of any type but complex.
      larger: Whether the largest is returned, rather than the smallest.
      window: Height and width, in cells.
      stride: Step from one window to the next.
      padding: Cells `(before, after)` for height and width; they are never returned.

    Returns:
      `[B, H', W', C]`, of the input's type; NaN for a window that contains NaN.

    Example:
      >>> x = jnp.array([3.0, 1.0, 2.0, 2.0]).reshape(1, 1, 4, 1)
      >>> no = ((0, 0), (0, 0))
      >>> sliding_extremes(x, True, (1, 2), (1, 2), no)[0, 0, :, 0].tolist()
      [3.0, 2.0]
    """
    options = (larger, tuple(window), tuple(stride), tuple(map(tuple, padding)))
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: _extreme_of_taps(x, *options),
        default=lambda x: _reduce_window(x, *options),
    )


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def extreme_cells(values: jax.Array, larger: bool, axis: int) -> jax.Array:
    """Returns the largest or the smallest value along an axis.

    The first of equal values gets the gradient. The gradient goes to a position, not to
    the values that equal the extreme: XLA may compute the values once for the extreme
    and again, with another rounding, for its gradient, and the gradient of `jnp.max`
    then finds no equal value and divides by zero. Positions are searched only where a
    gradient is needed; on a CPU that takes ten times as long.

    Args:
      values: Floating-point, of any shape.
      larger: Whether the largest is returned, rather than the smallest.
      axis: The axis that is reduced.

    Returns:
      Array of the values' shape without the axis, of their type; NaN where a value is
      NaN.

    Example:
      >>> extreme_cells(jnp.array([[3.0, 1.0], [2.0, 2.0]]), False, 1).tolist()
      [1.0, 2.0]
    """
    return (jnp.max if larger else jnp.min)(values, axis)


@extreme_cells.defjvp
def _extreme_cells_jvp(larger, axis, primals, tangents):
    (values,), (tangent,) = primals, tangents
    first = (jnp.argmax if larger else jnp.argmin)(values, axis, keepdims=True)
    tangent = linear_map(
        partial(_cells_at, axis=axis),
        partial(_to_first, axis=axis, length=values.shape[axis]),
        tangent,
        first,
    )
    return extreme_cells(values, larger, axis), tangent


def _cells_at(values, first, axis):
    return jnp.take_along_axis(values, first, axis).squeeze(axis)


def _to_first(gradient, first, axis, length):
    gradient = jnp.expand_dims(gradient, axis)
    shape = list(first.shape)
    shape[axis] = length
    positions = jax.lax.broadcasted_iota(first.dtype, shape, axis)
    return jnp.where(positions == first, gradient, 0)


def farthest(dtype: jnp.dtype, larger: bool) -> Any:
    """Returns the value of a type that is never the extreme beside another value.

    Args:
      dtype: A type of real numbers, integers or truth values.
      larger: Whether the largest value is the extreme, rather than the smallest.
    """
    if jnp.issubdtype(dtype, jnp.floating):
        value = -jnp.inf if larger else jnp.inf
    elif dtype == jnp.bool_:
        value = not larger
    else:
        value = jnp.iinfo(dtype).min if larger else jnp.iinfo(dtype).max
    return np.array(value, dtype)


def _reduce_window(x, larger, window, stride, padding):
    return jax.lax.reduce_window(
        x,
        farthest(x.dtype, larger),
        jax.lax.max if larger else jax.lax.min,
        (1, *window, 1),
        (1, *stride, 1),
        ((0, 0), *padding, (0, 0)),
    )


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _extreme_of_taps(x, larger, window, stride, padding):
    return _with_winner(x, larger, window, stride, padding)[0]


@_extreme_of_taps.defjvp
def _extreme_of_taps_jvp(larger, window, stride, padding, primals, tangents):
    (x,), (tangent,) = primals, tangents
    best, winner = _with_winner(x, larger, window, stride, padding)
    placed = {"window": window, "stride": stride, "padding": padding}
    tangent = linear_map(
        partial(_cells_of_winners, **placed),
        partial(_to_winners, size=x.shape[1:3], **placed),
        tangent,
        winner,
    )
    return best, tangent


def _with_winner(x, larger, window, stride, padding):
    """Returns the extreme of every window, and the number of its tap."""
    worst = farthest(x.dtype, larger)
    further = jax.lax.gt if larger else jax.lax.lt
    # `max` and `min` propagate NaN, where the comparisons above are false.
    extreme = jax.lax.max if larger else jax.lax.min
    best, *others = taps.shifted(x, window, stride, padding, fill=worst)
    # The narrowest type that can count the taps: the array is stored for the gradient.
    kind = jnp.uint8 if window[0] * window[1] <= 256 else jnp.int32
    winner = jnp.zeros(best.shape, kind)
    for index, tap in enumerate(others, 1):
        winner = jnp.where(further(tap, best), kind(index), winner)
        best = extreme(best, tap)
    return best, winner


def _cells_of_winners(x, winner, window, stride, padding):
    cells, *others = taps.shifted(x, window, stride, padding)
    for index, tap in enumerate(others, 1):
        cells = jnp.where(winner == index, tap, cells)
    return cells


def _to_winners(gradient, winner, size, window, stride, padding):
    return taps.spread(
        lambda tap, winner, gradient: jnp.where(winner == tap, gradient, 0),
        [winner, gradient],
        size,
        window,
        stride,
        padding,
    )
