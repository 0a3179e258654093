"""Pooling operations: each window of a map is reduced to one value a channel.

All functions take `(x, window, stride, padding)`, as `fpn_jax.ops.kernels.windows`
defines them. Maps `[B, H, W, C]` give `[B, H', W', C]`; without a window, the whole map
is pooled to `[B, C]`. The functions compute in float32, or in float64 of float64, and
return the input's type; only the largest and the smallest of integers are integers, and
other results are float32. They never count padding, return NaN for a window that
contains NaN, and raise `InputError` where the windows do not fit the map.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors
from fpn_jax.ops.kernels.padding import Padding
from fpn_jax.ops.kernels.windows import (
    Bins,
    Size,
    Window,
    wide,
    window_counts,
    window_extremes,
    window_means,
    windows,
)


def max_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns the largest value of every window.

    Of equal cells, the first gets the gradient.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`; None is the whole map.
      stride: Step, in cells; None is the window's size.
      padding: See `Padding`.

    Returns:
      `[B, H', W', C]`; `[B, C]` over the whole map.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> max_pool(x, window=2, stride=2, padding="same")[0, :, :, 0].tolist()
      [[4.0, 5.0], [7.0, 8.0]]
    """
    y = window_extremes(x, True, window, stride, padding)
    return finish(y, x, window)


def min_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns the smallest value of every window.

    Arguments, result and gradient are as in `max_pool`.

    Example:
      >>> min_pool(jnp.arange(9.0).reshape(1, 3, 3, 1)).tolist()
      [[0.0]]
    """
    y = window_extremes(x, False, window, stride, padding)
    return finish(y, x, window)


def average_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns the mean of every window, over the cells inside the map only.

    Arguments and result are as in `max_pool`.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> average_pool(x, window=2, stride=2, padding="same")[0, :, :, 0].tolist()
      [[2.0, 3.5], [6.5, 8.0]]
    """
    return finish(window_means(x, window, stride, padding), x, window)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Returns the mean of every channel over the whole map, `[B, C]`.

    Example:
      >>> global_average_pool(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
      [[1.5]]
    """
    return average_pool(x)


def global_max_pool(x: jax.Array) -> jax.Array:
    """Returns the largest value of every channel over the whole map, `[B, C]`.

    Example:
      >>> global_max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
      [[3.0]]
    """
    return max_pool(x)


def median_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns the median of every window.

    The median of an even number of cells is the mean of the middle two. The gradient
    goes to the one or two cells that a stable sort puts in the middle: of equal cells,
    those in the middle of the window's row-by-row order.

    Arguments and result are as in `max_pool`.

    Example:
      >>> median_pool(jnp.array([5.0, 1.0, 9.0, 2.0]).reshape(1, 2, 2, 1)).tolist()
      [[3.5]]
    """
    values, inside = windows(wide(x), window, stride, padding)
    count = inside.sum(-1, keepdims=True)
    rank = np.arange(inside.shape[-1])
    shares = (rank == (count - 1) // 2) * 0.5 + (rank == count // 2) * 0.5
    return finish(_ranked_mean(values, inside, shares), x, window)


def k_max_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
    *,
    k: int,
) -> jax.Array:
    """Returns the mean of the `k` largest values of every window.

    Where a bin, or a window at the edge of the map, has fewer than `k` cells, all of
    them are averaged. The gradient is `1 / k` for each averaged cell; equal cells are
    taken in the window's row-by-row order.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`; None is the whole map.
      stride: Step, in cells; None is the window's size.
      padding: See `Padding`.
      k: From 1, the maximum, to the window's number of cells, the average.

    Returns:
      `[B, H', W', C]`; `[B, C]` over the whole map.

    Raises:
      InputError: `k` is not a whole number of at least 1, or is larger than the number
        of cells of a window or of the whole map.

    Example:
      >>> x = jnp.array([5.0, 1.0, 9.0, 2.0]).reshape(1, 2, 2, 1)
      >>> k_max_pool(x, k=2).tolist()
      [[7.0]]
    """
    values, inside = windows(wide(x), window, stride, padding)
    cells = inside.shape[-1]
    errors.at_least("k", k, 1, whole=True)
    if k > cells and not isinstance(window, Bins):
        raise errors.InputError(
            f"k is {k}; it must be from 1 to {cells}, the number of cells of the "
            f"{'whole map' if window is None else f'window {window}'}"
        )
    taken = np.minimum(k, inside.sum(-1, keepdims=True))
    shares = (np.arange(cells) < taken) / taken
    return finish(-_ranked_mean(-values, inside, shares), x, window)


def l2_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns `sqrt(Σ r²) / n` of every window of `n` cells `r`.

    The cells are first divided by the largest `|r|` of their window, so that no square
    overflows or underflows. The gradient of a window of zeros is zero.

    Arguments and result are as in `max_pool`.

    Example:
      >>> l2_pool(jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1)).tolist()
      [[2.5]]
    """
    root = _generalized_mean(x, window, stride, padding, 2)
    count = window_counts(x.shape[1:3], window, stride, padding)
    return finish(root / np.sqrt(count.astype(root.dtype)), x, window)


def lp_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
    *,
    p: float | jax.Array,
) -> jax.Array:
    """Returns the generalized mean `((Σ |r|^p) / n)^(1 / p)` of every window.

    `p = 1` is the average of `|r|`, `p → ∞` its maximum; a learned `p` over the whole
    map is GeM (Radenović et al., arXiv 1711.02512). Signs are dropped, so that every
    `p` is defined for every input. The cells are first divided by the largest `|r|` of
    their window, so that no power overflows or underflows. The gradient is zero for a
    window of zeros, and for a cell that is zero or below `2^-126` times the largest.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`; None is the whole map.
      stride: Step, in cells; None is the window's size.
      padding: See `Padding`.
      p: Positive and finite; one number, or `[C]` for one a channel.

    Returns:
      `[B, H', W', C]`; `[B, C]` over the whole map.

    Raises:
      InputError: `p` is a number and not positive and finite.

    Example:
      >>> lp_pool(jnp.array([1.0, -7.0]).reshape(1, 1, 2, 1), p=2).tolist()
      [[5.0]]
    """
    if _is_known_number(p):
        check_p(float(p))
    return finish(_generalized_mean(x, window, stride, padding, p), x, window)


def mixed_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
    *,
    max_share: float | jax.Array,
) -> jax.Array:
    """Returns `λ · max + (1 - λ) · average` of every window.

    Lee et al., "Generalizing pooling functions", arXiv 1509.08985.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`; None is the whole map.
      stride: Step, in cells; None is the window's size.
      padding: See `Padding`.
      max_share: `λ`, in [0, 1]; one number, or `[C]` for one a channel.

    Returns:
      `[B, H', W', C]`; `[B, C]` over the whole map.

    Raises:
      InputError: `max_share` is a number outside [0, 1].

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
      >>> mixed_pool(x, max_share=0.5).tolist()
      [[2.25]]
    """
    if _is_known_number(max_share):
        errors.within("max_share", float(max_share), 0, 1)
    largest = window_extremes(wide(x), True, window, stride, padding)
    average = window_means(x, window, stride, padding)
    return finish(max_share * largest + (1 - max_share) * average, x, window)


def finish(y: jax.Array, x: jax.Array, window: Window) -> jax.Array:
    """Returns pooled values in the input's type, `[B, C]` where a whole map was pooled.

    Args:
      y: One value a window, `[B, H', W', C]`.
      x: The maps that were pooled.
      window: The window of the pooling operation.
    """
    # The mean of integers is no integer, as in NumPy.
    if jnp.issubdtype(x.dtype, jnp.floating):
        y = y.astype(x.dtype)
    return y[:, 0, 0] if window is None else y


def check_p(p: float) -> None:
    """Refuses an exponent of `lp_pool` that is not positive and finite.

    Args:
      p: The exponent.

    Raises:
      InputError: The exponent is not positive and finite.
    """
    if not 0 < p < np.inf:
        raise errors.InputError(
            f"p is {p}; it must be above 0 and finite; for p → ∞ use the pool 'max'"
        )


def _is_known_number(value: float | jax.Array) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, jax.core.Tracer)


def _generalized_mean(
    x: jax.Array,
    window: Window,
    stride: Size | None,
    padding: Padding,
    p: float | jax.Array,
) -> jax.Array:
    """Returns `lp_pool` before `finish`."""
    values, inside = windows(jnp.abs(wide(x)), window, stride, padding)
    tiny = jnp.finfo(values.dtype).tiny
    largest = jax.lax.stop_gradient(jnp.max(values, axis=3, keepdims=True))
    # A window of zeros cannot be scaled; infinity and NaN need no scale.
    scale = jnp.where((largest >= tiny) & (largest < jnp.inf), largest, 1)
    ratio = values / scale
    # `~(x < t)` instead of `x >= t`, here and below: NaN counts.
    counted = ~(ratio < tiny)
    powers = jnp.where(counted, jnp.where(counted, ratio, 1) ** p, 0)
    mean = powers.sum(axis=3) / inside.sum(axis=2)[..., None]
    some = ~(mean <= 0)
    return jnp.where(some, scale[:, :, :, 0] * jnp.where(some, mean, 1) ** (1 / p), 0)


def _ranked_mean(
    values: jax.Array, inside: np.ndarray, shares: np.ndarray
) -> jax.Array:
    """Returns the sum of ascending values, each with its rank's share."""
    ranked = jnp.sort(jnp.where(inside[..., None], values, jnp.inf), axis=3)
    shares = shares.astype(values.dtype)[..., None]
    # Ranks without a share may be the +inf outside the map, and 0 · inf is NaN.
    mean = jnp.sum(jnp.where(shares > 0, ranked, 0) * shares, axis=3)
    # NaN is sorted last, where it may get no share, so it is restored here.
    return jnp.where(jnp.isnan(values).any(axis=3), jnp.nan, mean)
