"""EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks.

arXiv 1905.11946.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels
from fpn_jax.backbones.mobilenet_v1 import LEVELS, PADDINGS, round_channels
from fpn_jax.backbones.mobilenet_v2 import (
    InvertedResidual,
    Stage,
    StageSize,
    scale,
    stage_windows,
)
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

STEM = 32
TOP = 1280
SQUEEZE_RATIO = 4
STAGES = (
    StageSize(1, 16, 1, 1, 3),
    StageSize(6, 24, 2, 2, 3),
    StageSize(6, 40, 2, 2, 5),
    StageSize(6, 80, 3, 2, 3),
    StageSize(6, 112, 3, 1, 5),
    StageSize(6, 192, 4, 2, 5),
    StageSize(6, 320, 1, 1, 3),
)
"""Stages 2 to 8 of EfficientNet-B0, table 1."""


class Scaling(NamedTuple):
    """The numbers of one member of the family, equation 3.

    Attributes:
      width: Factor of the channels of every layer.
      depth: Factor of the number of blocks of every stage.
      native_size: Height and width of the images, in pixels.
      dropout: Share of the classifier's inputs that training drops.
      epsilon: Added to the variance in batch normalization; the value of torchvision's
        weights.
    """

    width: float
    depth: float
    native_size: int
    dropout: float
    epsilon: float = 1e-5


B0 = Scaling(1.0, 1.0, 224, 0.2)
B1 = Scaling(1.0, 1.1, 240, 0.2)
B2 = Scaling(1.1, 1.2, 260, 0.3)
B3 = Scaling(1.2, 1.4, 300, 0.3)
B4 = Scaling(1.4, 1.8, 380, 0.4)
B5 = Scaling(1.6, 2.2, 456, 0.4, 1e-3)
B6 = Scaling(1.8, 2.6, 528, 0.5, 1e-3)
B7 = Scaling(2.0, 3.1, 600, 0.5, 1e-3)


class EfficientNet(WindowedBackbone):
    """An EfficientNet without its classifier (Tan & Le, arXiv 1905.11946).

    Level `l` is the last map of stride `2**l`: the map after stage 1, 2, 3, 5 or 7, and
    for level 5 after the last 1 × 1 convolution, the module `top`. Stages that no level
    needs are not built. Differs from the paper: running averages have momentum 0.9, not
    0.99.

    Attributes:
      scaling: The member of the family, `B0` to `B7`.
      levels: Levels to return, out of 1 to 5.
      head_conv: Whether level 5 is the map after the last 1 × 1 convolution, or the map
        before it, which has a quarter of the channels.
      stochastic_depth: Share of the examples that skip a block in training, in [0, 1);
        the share grows linearly with the block, from 0 at the first. Needs the rng
        "dropout".
      padding: "symmetric", or "same" for weights that TensorFlow trained.
      epsilon: Added to the variance in batch normalization; None takes the value of
        torchvision's weights, 0.001 is that of weights that TensorFlow trained.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    scaling: Scaling
    levels: tuple[int, ...] = (2, 3, 4, 5)
    head_conv: bool = True
    stochastic_depth: float = 0.2
    padding: str = "symmetric"
    epsilon: float | None = None
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_levels("EfficientNet", self.levels, LEVELS)
        errors.one_of("padding", self.padding, PADDINGS)
        for name in ("width", "depth"):
            factor = getattr(self.scaling, name)
            errors.within(f"scaling.{name}", factor, 0, math.inf, open_low=True)
        errors.within("stochastic_depth", self.stochastic_depth, 0, 1, open_high=True)
        super().__post_init__()

    @property
    def native_size(self) -> int:
        """Height and width of the paper's images, in pixels."""
        return self.scaling.native_size

    @property
    def paper_head(self) -> dict[str, object]:
        """Spec of the paper's classifier."""
        return {"name": "pool", "pool": "average", "dropout": self.scaling.dropout}

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        stages = scale(STAGES, self.scaling.width, self.scaling.depth)
        channels = {level: size.features for level, size in stages}
        if self.head_conv:
            channels[5] = round_channels(TOP * self.scaling.width)
        return {level: channels[level] for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        return stage_windows(STAGES, self.padding)

    def _drop_rates(self, num_blocks):
        """Returns the rates of the blocks of every stage, which grow linearly."""
        total, first, rates = sum(num_blocks), 0, []
        for number in num_blocks:
            blocks = range(first, first + number)
            rates.append(tuple(self.stochastic_depth * i / total for i in blocks))
            first += number
        return rates

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, 3]`.
          train: Whether blocks are skipped, batch statistics used and the running
            averages updated.
        """
        numerics = Numerics(
            self.dtype,
            self.axis_name,
            epsilon=self.scaling.epsilon if self.epsilon is None else self.epsilon,
            padding=self.padding,
        )
        width = round_channels(STEM * self.scaling.width)
        stem = ConvNorm(width, kernel_size=3, stride=2, numerics=numerics, name="stem")
        x = nn.silu(stem(x, train=train))
        block = partial(
            InvertedResidual,
            squeeze_ratio=SQUEEZE_RATIO,
            activation=nn.silu,
            numerics=numerics,
        )
        stages = scale(STAGES, self.scaling.width, self.scaling.depth)
        drop_rates = self._drop_rates([size.num_blocks for _, size in stages])
        pyramid = {}
        for number, (level, size) in enumerate(stages, 1):
            if level > max(self.levels):
                break
            stage = Stage(block, size, drop_rates[number - 1], name=f"stage{number}")
            x = pyramid[level] = stage(x, train=train)
        if self.head_conv and 5 in self.levels:
            width = self.channels[5]
            top = ConvNorm(width, kernel_size=1, numerics=numerics, name="top")
            pyramid[5] = nn.silu(top(x, train=train))
        return {level: pyramid[level] for level in sorted(self.levels)}
