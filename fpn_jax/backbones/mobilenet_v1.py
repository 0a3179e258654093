"""MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications.

arXiv 1704.04861.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.depthwise import DepthwiseConvNorm
from fpn_jax.layers.numerics import EPSILON, Numerics
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

LEVELS = (1, 2, 3, 4, 5)
PADDINGS = ("symmetric", "same")
STEM = 32
STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))
"""Channels and number of blocks of every stage, table 1."""


def round_channels(channels: float) -> int:
    """Returns the nearest multiple of 8, at least 8 and at least 90 % of the channels.

    The authors' code rounds the product of channels and width multiplier this way.

    Args:
      channels: Channels, above 0.

    Example:
      >>> [round_channels(c) for c in (3, 16, 16.8, 20, 33.6, 12)]
      [8, 16, 16, 24, 32, 16]
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def check_arguments(
    network: str, levels: tuple[int, ...], padding: str, width_multiplier: float
) -> None:
    """Refuses arguments that no MobileNet takes.

    Args:
      network: Name of the network, for the error message.
      levels: Levels to return.
      padding: One of `PADDINGS`.
      width_multiplier: Factor of the channels of every layer.

    Raises:
      InputError: A level or the padding does not exist, a level is given twice, or the
        factor is not positive.
    """
    check_levels(network, levels, LEVELS)
    errors.one_of("padding", padding, PADDINGS)
    errors.within("width_multiplier", width_multiplier, 0, math.inf, open_low=True)


class SeparableConv(nn.Module):
    """A depthwise 3 × 3 and a 1 × 1 convolution, each normalized; figure 3, right.

    Attributes:
      features: Output channels.
      stride: Step of the depthwise convolution, in cells.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    features: int
    stride: int
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), features]`."""
        depthwise = DepthwiseConvNorm(3, self.stride, self.numerics, name="depthwise")
        x = nn.relu6(depthwise(x, train=train))
        pointwise = ConvNorm(
            self.features, kernel_size=1, numerics=self.numerics, name="pointwise"
        )
        return nn.relu6(pointwise(x, train=train))


class Stage(nn.Module):
    """Separable convolutions of one width; the first one has the stride.

    Attributes:
      features: Output channels.
      num_blocks: Number of separable convolutions.
      stride: Step of the first one, in cells.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    features: int
    num_blocks: int
    stride: int
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the map after the last block."""
        for index in range(self.num_blocks):
            x = SeparableConv(
                self.features,
                self.stride if index == 0 else 1,
                self.numerics,
                name=f"block{index}",
            )(x, train=train)
        return x


class MobileNetV1(WindowedBackbone):
    """MobileNet without its classifier (Howard et al., arXiv 1704.04861).

    Level `l` is the last map of stride `2**l`, after stage `l`. Stages that no level
    needs are not built. Differs from the paper: the ReLU is cut off at 6, as in the
    authors' code and weights.

    Attributes:
      width_multiplier: Factor `α` of the channels of every layer, which are rounded to
        multiples of 8.
      levels: Levels to return, out of 1 to 5.
      padding: "symmetric", or "same" for weights that TensorFlow trained.
      epsilon: Added to the variance in batch normalization; 0.001 for weights that
        TensorFlow trained.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    native_size: ClassVar[int] = 224
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {"name": "pool", "pool": "average", "dropout": 0.001}
    """Spec of the paper's classifier, with the dropout of the authors' code."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    width_multiplier: float = 1.0
    levels: tuple[int, ...] = (2, 3, 4, 5)
    padding: str = "symmetric"
    epsilon: float = EPSILON
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_arguments("MobileNetV1", self.levels, self.padding, self.width_multiplier)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        return {level: self._width(level) for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        # The stem and the first blocks of stages 2 to 5 have stride 2.
        return dict.fromkeys(LEVELS, (SlidingWindow(3, 2, self.padding),))

    def _width(self, level):
        return round_channels(STAGES[level - 1][0] * self.width_multiplier)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, 3]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        numerics = Numerics(
            self.dtype, self.axis_name, epsilon=self.epsilon, padding=self.padding
        )
        width = round_channels(STEM * self.width_multiplier)
        stem = ConvNorm(width, kernel_size=3, stride=2, numerics=numerics, name="stem")
        x = nn.relu6(stem(x, train=train))
        pyramid = {}
        for level in range(1, max(self.levels) + 1):
            x = pyramid[level] = Stage(
                self._width(level),
                num_blocks=STAGES[level - 1][1],
                stride=1 if level == 1 else 2,
                numerics=numerics,
                name=f"stage{level}",
            )(x, train=train)
        return {level: pyramid[level] for level in sorted(self.levels)}
