"""ResNet: Deep Residual Learning for Image Recognition, arXiv 1512.03385."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.errors import InputError
from fpn_jax.layers.conv import ConvNorm, conv
from fpn_jax.layers.norm import norm
from fpn_jax.ops.pooling import max_pool
from fpn_jax.pyramid import Pyramid

LEVELS = (1, 2, 3, 4, 5)


class _Block(nn.Module):
    """What the two residual blocks share.

    Attributes:
      features: Channels inside the block; the output has `expansion` times as many.
      stride: Step of the block's 3 × 3 convolution, in cells.
      zero_init_residual: Whether the block starts as its shortcut.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    features: int
    stride: int
    zero_init_residual: bool
    dtype: jnp.dtype
    axis_name: str | None

    def _conv_norm(self, x, index, features, kernel_size, stride, train, last=False):
        x = conv(features, kernel_size, stride, dtype=self.dtype, name=f"conv{index}")(
            x
        )
        return norm(
            "batch",
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name=f"norm{index}",
            zero_init=last and self.zero_init_residual,
        )(x)

    def _shortcut(self, x, train):
        features = self.features * self.expansion
        if self.stride == 1 and x.shape[-1] == features:
            return x
        return ConvNorm(
            features,
            kernel_size=1,
            stride=self.stride,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="downsample",
        )(x, train=train)


class BasicBlock(_Block):
    """Two 3 × 3 convolutions and a shortcut; figure 5, left."""

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), features]`."""
        y = self._conv_norm(x, 1, self.features, 3, self.stride, train)
        y = self._conv_norm(nn.relu(y), 2, self.features, 3, 1, train, last=True)
        return nn.relu(y + self._shortcut(x, train))


class Bottleneck(_Block):
    """1 × 1, 3 × 3 and 1 × 1 convolutions and a shortcut; figure 5, right.

    Differs from the paper: the 3 × 3 convolution has the stride, not the first 1 × 1,
    which then sees every cell.
    """

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), 4 * features]`."""
        y = self._conv_norm(x, 1, self.features, 1, 1, train)
        y = self._conv_norm(nn.relu(y), 2, self.features, 3, self.stride, train)
        features = self.features * self.expansion
        y = self._conv_norm(nn.relu(y), 3, features, 1, 1, train, last=True)
        return nn.relu(y + self._shortcut(x, train))


class Stage(nn.Module):
    """Residual blocks of one resolution; the first one has the stride.

    Attributes:
      block: `BasicBlock` or `Bottleneck`.
      num_blocks: Number of blocks.
      features: Channels inside a block.
      stride: Step of the first block, in cells.
      zero_init_residual: Whether every block starts as its shortcut.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    block: type[_Block]
    num_blocks: int
    features: int
    stride: int
    zero_init_residual: bool
    dtype: jnp.dtype
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the map after the last block."""
        for index in range(self.num_blocks):
            x = self.block(
                features=self.features,
                stride=self.stride if index == 0 else 1,
                zero_init_residual=self.zero_init_residual,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"block{index}",
            )(x, train=train)
        return x


class ResNet(nn.Module):
    """A residual network without its classifier (He et al., arXiv 1512.03385).

    Level 1 is the map after the stem's convolution, level `l` from 2 on the map after
    stage `l - 1`. Stages that no level asks for are not built.

    Attributes:
      block: `BasicBlock` or `Bottleneck`.
      stage_sizes: Number of blocks of each of the four stages.
      width: Channels of the stem, and inside the blocks of the first stage; every
        further stage doubles them.
      levels: Levels to return, out of 1 to 5.
      zero_init_residual: Whether the last scale of every block starts at 0, so that
        the block starts as its shortcut (Goyal et al., arXiv 1706.02677).
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    block: type[_Block]
    stage_sizes: tuple[int, int, int, int]
    width: int = 64
    levels: tuple[int, ...] = (2, 3, 4, 5)
    zero_init_residual: bool = True
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if self.width < 1:
            raise InputError(f"width is {self.width}; ResNet needs at least 1 channel")
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise InputError(
                f"levels are {tuple(self.levels)}; ResNet has one or more of {LEVELS}"
            )
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        return {
            level: self.width * 2 ** (level - 2) * self.block.expansion
            if level > 1
            else self.width
            for level in sorted(self.levels)
        }

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, 3]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        x = ConvNorm(
            self.width,
            kernel_size=7,
            stride=2,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="stem",
        )(x, train=train)
        pyramid = {1: nn.relu(x)}
        for level in range(2, max(self.levels) + 1):
            x = pyramid[level - 1]
            if level == 2:
                x = max_pool(x, window=3, stride=2, padding=1)
            pyramid[level] = Stage(
                block=self.block,
                num_blocks=self.stage_sizes[level - 2],
                features=self.width * 2 ** (level - 2),
                stride=1 if level == 2 else 2,
                zero_init_residual=self.zero_init_residual,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"stage{level - 1}",
            )(x, train=train)
        return {level: pyramid[level] for level in sorted(self.levels)}
