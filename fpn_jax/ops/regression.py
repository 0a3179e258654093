"""Losses of numbers that are predicted directly, element by element."""

import math

import jax
import jax.numpy as jnp
import optax


def l1(difference: jax.Array) -> jax.Array:
    """Returns `|x|`.

    Args:
      difference: Prediction minus target, of any shape.
    """
    return jnp.abs(difference.astype(jnp.float32))


def l2(difference: jax.Array) -> jax.Array:
    """Returns `x²`.

    Args:
      difference: Prediction minus target, of any shape.
    """
    return jnp.square(difference.astype(jnp.float32))


def smooth_l1(difference: jax.Array, beta: float = 1.0) -> jax.Array:
    """Returns `x² / 2β` where `|x| < β`, else `|x| − β / 2`, "Fast R-CNN" (1504.08083).

    Args:
      difference: Prediction minus target, of any shape.
      beta: Where the parabola ends, above 0.
    """
    return optax.losses.huber_loss(difference.astype(jnp.float32), delta=beta) / beta


def wing(difference: jax.Array, omega: float = 10.0, epsilon: float = 2.0) -> jax.Array:
    """Returns `ω ln(1 + |x| / ε)` where `|x| < ω`, else `|x| − C`, arXiv 1711.06753.

    `C = ω − ω ln(1 + ω / ε)` joins both parts. Small errors have a larger gradient than
    with `l1`.

    Args:
      difference: Prediction minus target, of any shape, in the units of `omega`.
      omega: Where the logarithm ends, above 0.
      epsilon: Curvature of the logarithm, above 0.
    """
    size = jnp.abs(difference.astype(jnp.float32))
    offset = omega - omega * math.log1p(omega / epsilon)
    near = omega * jnp.log1p(jnp.minimum(size, omega) / epsilon)
    return jnp.where(size < omega, near, size - offset)


LOSSES = {"l1": l1, "l2": l2, "smooth_l1": smooth_l1, "wing": wing}
"""Name → loss of a difference with its default arguments."""
