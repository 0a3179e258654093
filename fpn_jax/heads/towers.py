"""Towers: the convolutions of a detector, which all levels of the pyramid share."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.numerics import Numerics

SMALL = nn.initializers.normal(0.01)
"""Initial kernels of a detector (arXiv 1708.02002, section 4.1)."""
BACKGROUND = -4.59511985013459
"""Bias `−log((1 − π) / π)` of the class logits, with π = 0.01 (arXiv 1708.02002)."""


class Tower(nn.Module):
    """3 × 3 convolutions with a ReLU each; call it once for every level.

    Attributes:
      width: Channels of the convolutions.
      convolutions: Number of convolutions.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
      use_bias: Whether a convolution has a bias in spite of a normalization.
    """

    width: int
    convolutions: int
    numerics: Numerics
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, h, w, width]`.

        Args:
          x: Map, `[B, h, w, C]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        for index in range(1, self.convolutions + 1):
            layer = ConvNorm(
                self.width,
                3,
                kernel_init=SMALL,
                use_bias=self.use_bias,
                numerics=self.numerics,
                name=f"conv{index}",
            )
            x = nn.relu(layer(x, train=train))
        return x


def output(features: int, *, name: str, bias: float = 0.0) -> nn.Conv:
    """Returns the 3 × 3 convolution of a prediction, with small first values.

    It computes in float32: in bfloat16, logits about the bias of the background would
    be rounded by a hundredth.

    Args:
      features: Numbers that each cell predicts.
      name: The layer's name among its parent's parameters.
      bias: First value of the biases.
    """
    return nn.Conv(
        features,
        (3, 3),
        padding=1,
        dtype=jnp.float32,
        kernel_init=SMALL,
        bias_init=nn.initializers.constant(bias),
        name=name,
    )
