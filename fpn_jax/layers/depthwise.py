"""Depthwise convolutions with their parameters."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.norm import norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.kernels.depthwise import depthwise_conv
from fpn_jax.ops.kernels.padding import Padding

HE_DEPTHWISE = nn.initializers.variance_scaling(
    2.0, "fan_out", "normal", in_axis=-2, out_axis=-2, batch_axis=-1
)
"""He et al., arXiv 1502.01852, for one output channel per input: variance `2 / k²`."""


class DepthwiseConv(nn.Module):
    """A convolution of every channel with its own kernel, without a bias.

    Attributes:
      kernel_size: Height and width of the kernel, in cells.
      stride: Step, in cells.
      dilation: Distance of neighbouring taps of the kernel, in cells.
      padding: See `fpn_jax.ops.kernels.padding.Padding`.
      kernel_init: Initial value of the kernel, `[k, k, 1, C]`.
      dtype: Type to compute in; parameters are float32.
    """

    kernel_size: int
    stride: int = 1
    dilation: int = 1
    padding: Padding = "symmetric"
    kernel_init: nn.initializers.Initializer = HE_DEPTHWISE
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, H', W', C]`, by default `H' = ceil(H / stride)`.

        Args:
          x: Map, `[B, H, W, C]`.

        Raises:
          InputError: The padding is unknown, or symmetric around an even kernel.
        """
        size = (self.kernel_size, self.kernel_size)
        kernel = self.param("kernel", self.kernel_init, (*size, 1, x.shape[-1]))
        return depthwise_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            self.stride,
            self.padding,
            self.dilation,
        )


class DepthwiseConvNorm(nn.Module):
    """A depthwise convolution and its normalization; with norm "none" without a bias.

    Attributes:
      kernel_size: Height and width of the kernel, in cells.
      stride: Step, in cells.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    kernel_size: int
    stride: int = 1
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H', W', C]`, by default `H' = ceil(H / stride)`.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        x = DepthwiseConv(
            self.kernel_size,
            self.stride,
            padding=self.numerics.padding,
            dtype=self.numerics.dtype,
            name="conv",
        )(x)
        return norm(self.numerics, train=train, name="norm")(x)


class SeparableConvNorm(nn.Module):
    """A depthwise convolution, a 1 × 1 convolution, and one normalization after both.

    "Encoder-Decoder with Atrous Separable Convolution", arXiv 1802.02611, figure 3.
    Differs from the paper: there is no normalization and no ReLU in between, as in
    segmentation_models.pytorch.

    Attributes:
      features: Output channels.
      kernel_size: Height and width of the depthwise kernel, in cells.
      dilation: Distance of neighbouring taps of that kernel, in cells.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H, W, features]`.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        x = DepthwiseConv(
            self.kernel_size,
            dilation=self.dilation,
            padding=self.numerics.padding,
            dtype=self.numerics.dtype,
            name="depthwise",
        )(x)
        pointwise = ConvNorm(
            self.features, kernel_size=1, numerics=self.numerics, name="pointwise"
        )
        return pointwise(x, train=train)
