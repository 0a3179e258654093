"""Pooling by weights that sum to one: softmax, learned importance, random draws.

Arguments and results are as in `fpn_jax.ops.pooling`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors
from fpn_jax.ops.kernels.padding import Padding
from fpn_jax.ops.kernels.windows import Size, Window, wide, windows
from fpn_jax.ops.pooling import finish

PROBABILITIES = ("softmax", "proportional")
"""Probability of a cell `r` in stochastic pooling: `exp(r) / Σ exp(r)` or `r / Σ r`."""


def local_importance_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
    *,
    logits: jax.Array,
) -> jax.Array:
    """Returns `Σ r · w / Σ w` of every window, with the weights `w = exp(logits)`.

    LIP (Gao et al., arXiv 1908.04156). The largest logit of a window is subtracted from
    its logits, so that no window overflows or underflows.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`; None is the whole map.
      stride: Step, in cells; None is the window's size.
      padding: See `Padding`.
      logits: Logarithms of the cells' importance, `[B, H, W, C]`.

    Returns:
      `[B, H', W', C]`; `[B, C]` over the whole map.

    Example:
      >>> x = jnp.array([0.0, 8.0]).reshape(1, 1, 2, 1)
      >>> local_importance_pool(x, logits=jnp.zeros_like(x)).tolist()
      [[4.0]]
    """
    values, inside = windows(wide(x), window, stride, padding)
    logits, _ = windows(wide(logits), window, stride, padding)
    y = jnp.sum(_softmax(logits, inside) * values, axis=3)
    return finish(y, x, window)


def soft_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns `Σ r · exp(r) / Σ exp(r)` of every window (arXiv 2101.00440).

    Arguments and result are as in `fpn_jax.ops.pooling.max_pool`.

    Example:
      >>> soft_pool(jnp.array([0.0, 100.0]).reshape(1, 1, 2, 1)).tolist()
      [[100.0]]
    """
    return local_importance_pool(x, window, stride, padding, logits=x)


def stochastic_pool(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
    *,
    key: jax.Array | None = None,
    probabilities: str = "softmax",
) -> jax.Array:
    """Returns one cell of every window, drawn at random, or the draw's expectation.

    Zeiler & Fergus, arXiv 1301.3557, draw with "proportional" probabilities from maps
    without negative cells. A negative cell counts as zero and is never drawn. Where no
    cell of a window is positive, all are equally likely. The gradient of a draw goes to
    the drawn cell, the gradient of the expectation to cells and probabilities.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`; None is the whole map.
      stride: Step, in cells; None is the window's size.
      padding: See `Padding`.
      key: Key of the draw; None returns the expectation.
      probabilities: One of `PROBABILITIES`.

    Returns:
      `[B, H', W', C]`; `[B, C]` over the whole map.

    Raises:
      InputError: The probabilities are unknown.

    Example:
      >>> x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
      >>> stochastic_pool(x, probabilities="proportional").tolist()
      [[2.5]]
    """
    errors.one_of("probabilities", probabilities, PROBABILITIES)
    values, inside = windows(wide(x), window, stride, padding)
    shares = (_softmax if probabilities == "softmax" else _proportional)(values, inside)
    if key is None:
        y = jnp.sum(shares * values, axis=3)
    else:
        logits = jnp.log(jax.lax.stop_gradient(shares))
        drawn = jax.random.categorical(key, logits, axis=3)[:, :, :, None]
        y = jnp.take_along_axis(values, drawn, axis=3)[:, :, :, 0]
        # `categorical` draws some cell where the probabilities are NaN.
        y = jnp.where(jnp.isnan(shares).any(axis=3), jnp.nan, y)
    return finish(y, x, window)


def _softmax(logits: jax.Array, inside: np.ndarray) -> jax.Array:
    return jax.nn.softmax(jnp.where(inside[..., None], logits, -jnp.inf), axis=3)


def _proportional(values: jax.Array, inside: np.ndarray) -> jax.Array:
    inside = inside[..., None]
    positive = jnp.where(inside, jnp.maximum(values, 0), 0)
    total = positive.sum(axis=3, keepdims=True)
    # `~(x < t)` instead of `x >= t`: the shares of a window with NaN are NaN.
    some = ~(total < jnp.finfo(values.dtype).tiny)
    equal = inside / inside.sum(axis=2, keepdims=True, dtype=values.dtype)
    return jnp.where(some, positive / jnp.where(some, total, 1), equal)
