"""Convolutions with their initial values and normalization."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.norm import norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.kernels.convolution import convolve
from fpn_jax.ops.kernels.padding import Padding

HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al., arXiv 1502.01852: keeps the variance of gradients through a ReLU."""

LECUN_UNIFORM = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""Keeps the variance of maps where no ReLU follows, as in a feature pyramid."""


def conv(
    features: int,
    kernel_size: int | tuple[int, int],
    stride: int = 1,
    *,
    dtype: jnp.dtype,
    name: str,
    dilation: int = 1,
    padding: Padding = "symmetric",
    use_bias: bool = False,
    kernel_init: nn.initializers.Initializer = HE_FAN_OUT,
) -> nn.Conv:
    """Makes a convolution whose output is, by default, `ceil(size / stride)` large.

    Args:
      features: Output channels.
      kernel_size: Height and width of the kernel, in cells; one number for both.
      stride: Step, in cells.
      dtype: Type the convolution computes in; parameters are float32.
      name: The layer's name among its parent's parameters.
      dilation: Distance of neighbouring taps of the kernel, in cells.
      padding: See `fpn_jax.ops.kernels.padding.Padding`.
      use_bias: Whether a bias is added.
      kernel_init: Initial value of the kernel; biases start at 0.

    Returns:
      A layer of `[B, H, W, C]` to `[B, H', W', features]`, where `H'` is by default
      `ceil(H / stride)`, likewise `W'`. It raises `InputError` where the padding is
      unknown, or symmetric around an even kernel.
    """
    if isinstance(kernel_size, int):
        kernel_size = (kernel_size, kernel_size)
    return nn.Conv(
        features,
        kernel_size,
        strides=stride,
        kernel_dilation=dilation,
        padding=padding,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated_cls=_convolution,
        name=name,
    )


def _convolution():
    """Returns the function that `nn.Conv` calls instead of XLA's convolution."""

    # `nn.Conv` passes paddings by name unchanged. `conv` leaves the arguments that are
    # not named here at their defaults.
    def call(x, kernel, stride, padding, *, rhs_dilation, **_):
        return convolve(x, kernel, stride, padding, rhs_dilation)

    return call


class ConvNorm(nn.Module):
    """A convolution and its normalization.

    The normalization has the bias, unless the norm is "none" or `use_bias` is true.

    Attributes:
      features: Output channels.
      kernel_size: Height and width of the kernel, in cells; one number for both.
      stride: Step, in cells.
      dilation: Distance of neighbouring taps of the kernel, in cells.
      kernel_init: Initial value of the kernel.
      use_bias: Whether the convolution has a bias in spite of a normalization.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    features: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    dilation: int = 1
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = HE_FAN_OUT
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H', W', features]`, by default `H' = ceil(H / stride)`.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        x = conv(
            self.features,
            self.kernel_size,
            self.stride,
            dtype=self.numerics.dtype,
            name="conv",
            dilation=self.dilation,
            padding=self.numerics.padding,
            use_bias=self.use_bias or self.numerics.norm == "none",
            kernel_init=self.kernel_init,
        )(x)
        return norm(self.numerics, train=train, name="norm")(x)
