"""Squeeze and excitation: Squeeze-and-Excitation Networks, arXiv 1709.01507."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.conv import conv
from fpn_jax.ops.pooling import global_average_pool


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate computed from the means of all channels.

    `y = x · σ(W₂ δ(W₁ mean(x)))`, equations 2 to 4.

    Attributes:
      squeezed: Channels between the two layers.
      activation: `δ`, the activation between the two layers.
      dtype: Type to compute in; parameters are float32.
    """

    squeezed: int
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the scaled map, `[B, H, W, C]`.

        Args:
          x: Map, `[B, H, W, C]`.
        """

        def layer(features, name):
            return conv(features, 1, dtype=self.dtype, name=name, use_bias=True)

        gate = global_average_pool(x)[:, None, None]
        gate = self.activation(layer(self.squeezed, "squeeze")(gate))
        gate = nn.sigmoid(layer(x.shape[-1], "excite")(gate))
        return x * gate
