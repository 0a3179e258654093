"""Normalization layers and their constants."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.layers.numerics import EPSILON, Numerics

NORMS = ("batch", "group", "none")
"""The kinds of normalization that `norm` makes."""

GROUPS = 32
"""Groups of group normalization; the number of channels must be a multiple of it."""

MOMENTUM = 0.9
"""Weight of the old running average of batch normalization's moments."""


def check_norm(kind: str, channels: int) -> None:
    """Refuses a kind of normalization that is unknown or does not fit the channels.

    Args:
      kind: One of `NORMS`.
      channels: Number of channels to normalize.

    Raises:
      InputError: The kind is unknown, or `channels` cannot be divided into groups.
    """
    errors.one_of("norm", kind, NORMS)
    if kind == "group" and channels % GROUPS:
        raise errors.InputError(
            f"norm 'group' needs a multiple of {GROUPS} channels, but there are "
            f"{channels}"
        )


class BatchNorm(nn.Module):
    """Batch normalization, Ioffe & Szegedy, arXiv 1502.03167.

    `y = scale · (x − mean) / sqrt(var + epsilon) + bias` for every channel, computed as
    `x · k + shift`, which reads the map twice, and twice more for the gradient. In
    training, the moments are those of the batch, computed in one pass with
    `var = E[x²] − mean²`, which is accurate unless the mean is far larger than the
    deviation: in float32 the relative error of the variance is about `1e-7 · (mean /
    deviation)²`, 0.1 where the mean is 1,000 deviations. Moments are float32 at least.
    The running variance is that of the batch, the biased one, divided by `n`. Differs
    from PyTorch, which divides the running variance by `n − 1`: by 1.3 % of it after a
    step with 77 values a channel, and by less with more values.

    Attributes:
      train: Whether the moments of the batch are used and the running averages updated.
      momentum: Weight of the old running average.
      epsilon: Added to the variance before its root.
      dtype: Type of the result.
      scale_init: Initial value of the scale.
      axis_name: Mapped axis over which the moments are averaged in training.
    """

    train: bool
    momentum: float = MOMENTUM
    epsilon: float = EPSILON
    dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array of the shape of `x`, `[..., C]`.

        Raises:
          InputError: The moments of training are those of a single value.
        """
        channels = (x.shape[-1],)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        mean = self.variable("batch_stats", "mean", zeros, None, channels)
        var = self.variable("batch_stats", "var", ones, None, channels)
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", zeros, channels)
        moments = mean.value, var.value
        if self.train:
            axis_name = None if self.is_initializing() else self.axis_name
            if not self.is_initializing():
                self._refuse_single_values(x)
            moments = _moments(x, axis_name)
            if not self.is_initializing():
                averages = mean.value, var.value
                mean.value, var.value = _averages(averages, moments, self.momentum)
        return _normalized(x, moments, scale, bias, self.epsilon, self.dtype)

    def _refuse_single_values(self, x: jax.Array) -> None:
        count = math.prod(x.shape[:-1])
        if self.axis_name is not None:
            count *= jax.lax.axis_size(self.axis_name)
        if count == 1:
            raise errors.InputError(
                f"batch normalization in {'/'.join(self.path)} has a single value for "
                "each channel, and would replace it by 0: use larger images, more "
                "images at a time (data.global_batch_size, train.accumulation_steps), "
                "or another norm"
            )


# Jitted, so that a shape that a network repeats is traced once, not once a layer.
@partial(jax.jit, static_argnums=1)
def _moments(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance of every channel, over all replicas of an axis."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    sums = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
    if axis_name is not None:
        sums = jax.lax.pmean(sums, axis_name)
    # Rounding can make the variance negative.
    return sums[0], jnp.maximum(0.0, sums[1] - jnp.square(sums[0]))


@partial(jax.jit, static_argnums=2)
def _averages(averages, moments, momentum):
    return jax.tree.map(lambda a, m: a + (1 - momentum) * (m - a), averages, moments)


@partial(jax.jit, static_argnums=(4, 5))
def _normalized(x, moments, scale, bias, epsilon, dtype):
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    k = scale * jax.lax.rsqrt(moments[1] + epsilon)
    return (x * k + (bias - moments[0] * k)).astype(dtype)


def norm(
    numerics: Numerics, *, train: bool, name: str, zero_init: bool = False
) -> Callable[[jax.Array], jax.Array]:
    """Makes a normalization layer over the last axis.

    "batch" is `BatchNorm`, "group" is group normalization (Wu & He, arXiv 1803.08494),
    "none" is the identity. Statistics are float32 whatever the dtype is.

    Args:
      numerics: Kind, dtype, axis name and epsilon of the normalization.
      train: Whether batch statistics are used and the running averages updated.
      name: The layer's name among its parent's parameters.
      zero_init: Whether the scale starts at 0 instead of 1.

    Returns:
      A function of a `[..., C]` array to an array of the same shape.

    Raises:
      InputError: The kind is unknown.
    """
    scale_init = nn.initializers.zeros if zero_init else nn.initializers.ones
    errors.one_of("norm", numerics.norm, NORMS)
    if numerics.norm == "none":
        return lambda x: x
    if numerics.norm == "batch":
        make = partial(BatchNorm, train=train, axis_name=numerics.axis_name)
    else:
        make = partial(nn.GroupNorm, num_groups=GROUPS)
    return make(
        epsilon=numerics.epsilon,
        dtype=numerics.dtype,
        scale_init=scale_init,
        name=name,
    )
