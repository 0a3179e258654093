"""Normalization layers: the one place where their constants are decided."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors

NORMS = ("batch", "group", "none")
"""The kinds of normalization that `norm` makes."""

GROUPS = 32
"""Groups of group normalization; the number of channels is a multiple of it."""

EPSILON = 1e-5
"""Added to the variance before its root, where a paper says nothing else."""


def check_norm(kind: str, channels: int) -> None:
    """Refuses a kind of normalization that does not exist or does not fit.

    Args:
      kind: One of `NORMS`.
      channels: Number of channels to normalize.

    Raises:
      InputError: The kind is unknown, or `channels` do not divide into groups.
    """
    if kind not in NORMS:
        raise errors.unknown("norm", kind, NORMS)
    if kind == "group" and channels % GROUPS:
        raise errors.InputError(
            f"norm 'group' makes {GROUPS} groups, but {channels} channels are no "
            f"multiple of {GROUPS}"
        )


def norm(
    kind: str,
    *,
    train: bool,
    dtype: jnp.dtype,
    axis_name: str | None,
    name: str,
    zero_init: bool = False,
    epsilon: float = EPSILON,
) -> Callable[[jax.Array], jax.Array]:
    """Makes a normalization layer over the last axis.

    "batch" is batch normalization (Ioffe & Szegedy, arXiv 1502.03167) with running
    averages of momentum 0.9, "group" is group normalization (Wu & He, arXiv
    1803.08494). Statistics are float32 whatever `dtype` is.

    Args:
      kind: One of `NORMS`; "none" makes the identity.
      train: Whether batch statistics are used and the running averages updated.
      dtype: Type of the result.
      axis_name: Mapped axis over which batch statistics are averaged in training.
      name: The layer's name among its parent's parameters.
      zero_init: Whether the scale starts at 0 instead of 1.
      epsilon: Added to the variance before its root.

    Returns:
      A function of a `[..., C]` array to an array of the same shape.

    Raises:
      InputError: The kind is unknown.
    """
    scale_init = nn.initializers.zeros if zero_init else nn.initializers.ones
    if kind == "batch":
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=epsilon,
            dtype=dtype,
            scale_init=scale_init,
            axis_name=axis_name,
            name=name,
        )
    if kind == "group":
        return nn.GroupNorm(
            num_groups=GROUPS,
            epsilon=epsilon,
            dtype=dtype,
            scale_init=scale_init,
            name=name,
        )
    if kind == "none":
        return lambda x: x
    raise errors.unknown("norm", kind, NORMS)
