"""ResNet: Deep Residual Learning for Image Recognition, arXiv 1512.03385."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import ConvNorm, conv
from fpn_jax.layers.norm import norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import max_pool
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

PADDINGS = ("symmetric", "same")
COARSEST = {8: 3, 16: 4, 32: 5}
"""Output stride → the coarsest level."""


class _Block(nn.Module):
    """The base of the two residual blocks.

    Attributes:
      features: Channels inside the block; the output has `expansion` times as many.
      stride: Step of the block's first 3 × 3 convolution, in cells.
      first_dilation: Distance of neighbouring taps of that convolution, in cells.
      dilation: Distance of neighbouring taps of the 3 × 3 convolutions after it.
      zero_init_residual: Whether the block starts as its shortcut.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    features: int
    stride: int
    first_dilation: int
    dilation: int
    zero_init_residual: bool
    numerics: Numerics

    def _conv_norm(
        self,
        x,
        index,
        features,
        kernel_size,
        *,
        train,
        last=False,
        stride=1,
        dilation=1,
    ):
        x = conv(
            features,
            kernel_size,
            stride,
            dilation=dilation,
            padding=self.numerics.padding,
            dtype=self.numerics.dtype,
            name=f"conv{index}",
        )(x)
        zero_init = last and self.zero_init_residual
        return norm(
            self.numerics, train=train, name=f"norm{index}", zero_init=zero_init
        )(x)

    def _shortcut(self, x, train):
        features = self.features * self.expansion
        if self.stride == 1 and x.shape[-1] == features:
            return x
        return ConvNorm(
            features,
            kernel_size=1,
            stride=self.stride,
            numerics=self.numerics,
            name="downsample",
        )(x, train=train)


class BasicBlock(_Block):
    """Two 3 × 3 convolutions and a shortcut; figure 5, left."""

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), features]`."""
        first = {"stride": self.stride, "dilation": self.first_dilation}
        second = {"dilation": self.dilation, "last": True}
        y = self._conv_norm(x, 1, self.features, 3, **first, train=train)
        y = self._conv_norm(nn.relu(y), 2, self.features, 3, **second, train=train)
        return nn.relu(y + self._shortcut(x, train))


class Bottleneck(_Block):
    """1 × 1, 3 × 3 and 1 × 1 convolutions and a shortcut; figure 5, right.

    Differs from the paper: the 3 × 3 convolution has the stride instead of the first
    1 × 1 convolution, which would skip cells.
    """

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), 4 * features]`."""
        first = {"stride": self.stride, "dilation": self.first_dilation}
        y = self._conv_norm(x, 1, self.features, 1, train=train)
        y = self._conv_norm(nn.relu(y), 2, self.features, 3, **first, train=train)
        features = self.features * self.expansion
        y = self._conv_norm(nn.relu(y), 3, features, 1, last=True, train=train)
        return nn.relu(y + self._shortcut(x, train))


class Stage(nn.Module):
    """Residual blocks of one resolution; the first one has the stride.

    Where dilation replaces the stride, the first 3 × 3 convolution of that block keeps
    the dilation of the stage before, and all convolutions after it have the doubled
    dilation.

    Attributes:
      block: `BasicBlock` or `Bottleneck`.
      num_blocks: Number of blocks.
      features: Channels inside a block.
      stride: Step of the first block, in cells.
      first_dilation: Distance of neighbouring taps in its first 3 × 3 convolution.
      dilation: Distance of neighbouring taps in all other 3 × 3 convolutions.
      zero_init_residual: Whether every block starts as its shortcut.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    block: type[_Block]
    num_blocks: int
    features: int
    stride: int
    first_dilation: int
    dilation: int
    zero_init_residual: bool
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the map after the last block."""
        for index in range(self.num_blocks):
            x = self.block(
                features=self.features,
                stride=self.stride if index == 0 else 1,
                first_dilation=self.first_dilation if index == 0 else self.dilation,
                dilation=self.dilation,
                zero_init_residual=self.zero_init_residual,
                numerics=self.numerics,
                name=f"block{index}",
            )(x, train=train)
        return x


class ResNet(WindowedBackbone):
    """A residual network without its classifier (He et al., arXiv 1512.03385).

    Level 1 is the map after the convolution of the stem; level `l` from 2 on is the map
    after stage `l - 1`. Stages that no level needs are not built.

    An `output_stride` of 8 or 16 replaces the stride of the last two stages, or of the
    last one, by dilation (Chen et al., arXiv 1706.05587). These stages belong to the
    coarsest level, 3 or 4, whose map is the one after stage 4. Weights of the network
    without dilation fit: with padding "symmetric", every `32 / output_stride`-th cell
    of the coarsest map equals a cell of that network.

    Attributes:
      block: `BasicBlock` or `Bottleneck`.
      stage_sizes: Number of blocks of each of the four stages.
      width: Channels of the stem, and inside the blocks of the first stage; every
        further stage doubles them.
      levels: Levels to return, out of 1 to the coarsest; None returns all from 2 on.
      output_stride: Stride of the coarsest map, in pixels: 8, 16 or 32.
      padding: "symmetric", or "same" for weights that TensorFlow trained.
      zero_init_residual: Whether the last scale of every block starts at 0, so that
        the block starts as its shortcut (Goyal et al., arXiv 1706.02677).
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    native_size: ClassVar[int] = 224
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {"name": "pool", "pool": "average", "dropout": 0.0}
    """Spec of the paper's classifier."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    block: type[_Block]
    stage_sizes: tuple[int, int, int, int]
    width: int = 64
    levels: tuple[int, ...] | None = None
    output_stride: int = 32
    padding: str = "symmetric"
    zero_init_residual: bool = True
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        errors.at_least("width", self.width, 1, whole=True)
        errors.one_of("output_stride", self.output_stride, COARSEST)
        coarsest = COARSEST[self.output_stride]
        if self.levels is None:
            self.levels = tuple(range(2, coarsest + 1))
        network = f"ResNet with output_stride {self.output_stride}"
        check_levels(network, self.levels, tuple(range(1, coarsest + 1)))
        errors.one_of("padding", self.padding, PADDINGS)
        super().__post_init__()

    def _last_stage(self, level):
        return 4 if level == COARSEST[self.output_stride] else level - 1

    def _steps(self, stage):
        before, after = 2 ** max(stage, 2), 2 ** (stage + 1)
        kept_before, kept_after = (min(s, self.output_stride) for s in (before, after))
        return {
            "stride": kept_after // kept_before,
            "first_dilation": before // kept_before,
            "dilation": after // kept_after,
        }

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        widths = [2**stage * self.width * self.block.expansion for stage in range(4)]
        widths = [self.width, *widths]
        return {level: widths[self._last_stage(level)] for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        stem, pool = (SlidingWindow(size, 2, self.padding) for size in (7, 3))
        windows = {1: [stem], 2: [pool]}
        for stage in range(1, 5):
            # Stages whose stride is replaced by dilation belong to the coarsest level.
            level = min(stage + 1, COARSEST[self.output_stride])
            steps = self._steps(stage)
            stride, dilation = steps["stride"], steps["first_dilation"]
            window = SlidingWindow(3, stride, self.padding, dilation)
            windows.setdefault(level, []).append(window)
        return windows

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, 3]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        numerics = Numerics(self.dtype, self.axis_name, padding=self.padding)
        window, pool = self.windows[1][0], self.windows[2][0]
        stem = ConvNorm(
            self.width, window.size, window.stride, numerics=numerics, name="stem"
        )
        maps = [nn.relu(stem(x, train=train))]
        for stage in range(1, self._last_stage(max(self.levels)) + 1):
            x = maps[-1]
            if stage == 1:
                x = max_pool(x, pool.size, pool.stride, pool.padding)
            maps.append(
                Stage(
                    block=self.block,
                    num_blocks=self.stage_sizes[stage - 1],
                    features=self.width * 2 ** (stage - 1),
                    zero_init_residual=self.zero_init_residual,
                    **self._steps(stage),
                    numerics=numerics,
                    name=f"stage{stage}",
                )(x, train=train)
            )
        return {level: maps[self._last_stage(level)] for level in sorted(self.levels)}
