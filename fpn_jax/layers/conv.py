"""Convolutions: the one place where their padding and initial values are decided."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.norm import norm

HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al., arXiv 1502.01852: keeps the gradient's variance through a ReLU."""

LECUN_UNIFORM = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""Keeps the map's variance where no ReLU follows, as between levels of a pyramid."""


def conv(
    features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    dtype: jnp.dtype,
    name: str,
    use_bias: bool = False,
    kernel_init: nn.initializers.Initializer = HE_FAN_OUT,
) -> nn.Conv:
    """Makes a square convolution whose output is `ceil(size / stride)` large.

    Padding is `kernel_size // 2` on every side, at any stride: XLA's own "SAME" pads
    strided convolutions of even maps on one side only, which shifts them by a cell
    against weights trained elsewhere.

    Args:
      features: Output channels.
      kernel_size: Height and width of the kernel, in cells; odd.
      stride: Step, in cells.
      dtype: Type the convolution computes in; parameters are float32.
      name: The layer's name among its parent's parameters.
      use_bias: Whether a bias is added.
      kernel_init: Initial value of the kernel; biases start at 0.

    Returns:
      A layer of `[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`.

    Raises:
      ValueError: The kernel's size is even.
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; it must be odd")
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=stride,
        padding=kernel_size // 2,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        name=name,
    )


class ConvNorm(nn.Module):
    """A convolution and its normalization; the bias is the normalization's, if any.

    Attributes:
      features: Output channels.
      kernel_size: Height and width of the kernel, in cells; odd.
      stride: Step, in cells.
      norm: Kind of normalization, one of `fpn_jax.layers.norm.NORMS`.
      kernel_init: Initial value of the kernel.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    features: int
    kernel_size: int
    stride: int = 1
    norm: str = "batch"
    kernel_init: nn.initializers.Initializer = HE_FAN_OUT
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), features]`.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        x = conv(
            self.features,
            self.kernel_size,
            self.stride,
            dtype=self.dtype,
            name="conv",
            use_bias=self.norm == "none",
            kernel_init=self.kernel_init,
        )(x)
        return norm(
            self.norm,
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="norm",
        )(x)
