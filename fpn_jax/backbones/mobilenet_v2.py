"""MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv 1801.04381."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.backbones.mobilenet_v1 import PADDINGS, check_arguments, round_channels
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.depthwise import DepthwiseConvNorm
from fpn_jax.layers.numerics import EPSILON, Numerics
from fpn_jax.layers.squeeze_excite import SqueezeExcite
from fpn_jax.layers.stochastic_depth import StochasticDepth
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

STEM = 32
TOP = 1280


class StageSize(NamedTuple):
    """A row of the table of stages.

    Attributes:
      expansion: Channels inside a block, per input channel.
      features: Output channels.
      num_blocks: Number of blocks.
      stride: Step of the first block, in cells.
      kernel_size: Height and width of the depthwise kernels, in cells.
    """

    expansion: int
    features: int
    num_blocks: int
    stride: int
    kernel_size: int = 3


STAGES = (
    StageSize(1, 16, 1, 1),
    StageSize(6, 24, 2, 2),
    StageSize(6, 32, 3, 2),
    StageSize(6, 64, 4, 2),
    StageSize(6, 96, 3, 1),
    StageSize(6, 160, 3, 2),
    StageSize(6, 320, 1, 1),
)
"""Table 2."""


def scale(
    stages: tuple[StageSize, ...], width: float, depth: float = 1.0
) -> list[tuple[int, StageSize]]:
    """Returns the level and the size of every stage of a wider or deeper network.

    Args:
      stages: The stages after a stem of stride 2.
      width: Factor of the channels, which are rounded to multiples of 8.
      depth: Factor of the numbers of blocks, which are rounded up.
    """
    scaled, level = [], 1
    for size in stages:
        level += size.stride // 2
        size = size._replace(
            features=round_channels(size.features * width),
            num_blocks=math.ceil(size.num_blocks * depth),
        )
        scaled.append((level, size))
    return scaled


def stage_windows(
    stages: tuple[StageSize, ...], padding: str
) -> dict[int, list[SlidingWindow]]:
    """Returns level → windows that move centres, for `cell_offset`.

    Args:
      stages: The stages after a stem with a 3 × 3 kernel and stride 2.
      padding: Padding of every convolution.
    """
    windows = {1: [SlidingWindow(3, 2, padding)]}
    for level, size in scale(stages, width=1.0):
        window = SlidingWindow(size.kernel_size, size.stride, padding)
        windows.setdefault(level, []).append(window)
    return windows


class InvertedResidual(nn.Module):
    """A 1 × 1 expansion, a depthwise convolution, a linear 1 × 1 projection.

    A block of stride 1 that keeps the number of channels has a shortcut between its
    narrow ends; figure 3b.

    Attributes:
      features: Output channels.
      expansion: Channels inside the block, per input channel; with 1 there is no
        expansion layer.
      stride: Step of the depthwise convolution, in cells.
      kernel_size: Height and width of the depthwise kernel, in cells.
      squeeze_ratio: Input channels per channel inside squeeze and excitation, which
        follows the depthwise convolution; None leaves squeeze and excitation out.
      drop_rate: Share of the examples that keep only the shortcut in training.
      activation: Activation after expansion, depthwise convolution and squeeze.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    features: int
    expansion: int
    stride: int
    kernel_size: int = 3
    squeeze_ratio: int | None = None
    drop_rate: float = 0.0
    activation: Callable[[jax.Array], jax.Array] = nn.relu6
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), features]`."""
        y, channels = x, x.shape[-1]
        if self.expansion != 1:
            y = self._pointwise(channels * self.expansion, "expand")(y, train=train)
            y = self.activation(y)
        y = DepthwiseConvNorm(
            self.kernel_size, self.stride, self.numerics, name="depthwise"
        )(y, train=train)
        y = self.activation(y)
        if self.squeeze_ratio is not None:
            y = SqueezeExcite(
                max(1, channels // self.squeeze_ratio),
                self.activation,
                self.numerics.dtype,
                name="squeeze_excite",
            )(y)
        y = self._pointwise(self.features, "project")(y, train=train)
        if self.stride > 1 or channels != self.features:
            return y
        return x + StochasticDepth(self.drop_rate)(y, train=train)

    def _pointwise(self, features, name):
        return ConvNorm(features, kernel_size=1, numerics=self.numerics, name=name)


class Stage(nn.Module):
    """Inverted residuals of one width; the first one has the stride.

    Attributes:
      block: Function of output channels, expansion, stride and kernel size to a block.
      size: Arguments that the blocks share, their number, and the stride of the first.
      drop_rates: Stochastic depth of every block; None turns it off.
    """

    block: Callable[..., InvertedResidual]
    size: StageSize
    drop_rates: tuple[float, ...] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the map after the last block."""
        drop_rates = self.drop_rates or (0.0,) * self.size.num_blocks
        for index, drop_rate in enumerate(drop_rates):
            x = self.block(
                self.size.features,
                self.size.expansion,
                self.size.stride if index == 0 else 1,
                self.size.kernel_size,
                drop_rate=drop_rate,
                name=f"block{index}",
            )(x, train=train)
        return x


class MobileNetV2(WindowedBackbone):
    """MobileNetV2 without its classifier (Sandler et al., arXiv 1801.04381).

    Level `l` is the last map of stride `2**l`: the map after stage 1, 2, 3, 5 or 7, and
    for level 5 after the last 1 × 1 convolution, the module `top`. Stages that no level
    needs are not built.

    Attributes:
      width_multiplier: Factor of the channels of every layer, which are rounded to
        multiples of 8; for the last convolution, only a factor above 1 is used.
      levels: Levels to return, out of 1 to 5.
      head_conv: Whether level 5 is the map after the last 1 × 1 convolution, with 1280
        channels, or the map with 320 channels before it.
      padding: "symmetric", or "same" for weights that TensorFlow trained.
      epsilon: Added to the variance in batch normalization; 0.001 for weights that
        TensorFlow trained.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    native_size: ClassVar[int] = 224
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {"name": "pool", "pool": "average", "dropout": 0.2}
    """Spec of the paper's classifier."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    width_multiplier: float = 1.0
    levels: tuple[int, ...] = (2, 3, 4, 5)
    head_conv: bool = True
    padding: str = "symmetric"
    epsilon: float = EPSILON
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_arguments("MobileNetV2", self.levels, self.padding, self.width_multiplier)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        stages = scale(STAGES, self.width_multiplier)
        channels = {level: size.features for level, size in stages}
        if self.head_conv:
            channels[5] = round_channels(TOP * max(1.0, self.width_multiplier))
        return {level: channels[level] for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        return stage_windows(STAGES, self.padding)

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
        block = partial(InvertedResidual, numerics=numerics)
        stages = scale(STAGES, self.width_multiplier)
        for number, (level, size) in enumerate(stages, 1):
            if level > max(self.levels):
                break
            stage = Stage(block, size, name=f"stage{number}")
            x = pyramid[level] = stage(x, train=train)
        if self.head_conv and 5 in self.levels:
            width = self.channels[5]
            top = ConvNorm(width, kernel_size=1, numerics=numerics, name="top")
            pyramid[5] = nn.relu6(top(x, train=train))
        return {level: pyramid[level] for level in sorted(self.levels)}
