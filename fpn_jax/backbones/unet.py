"""U-Net: Convolutional Networks for Biomedical Image Segmentation, arXiv 1505.04597."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import max_pool
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

LEVELS = (0, 1, 2, 3, 4)
PADDINGS = ("symmetric",)


class UNetEncoder(WindowedBackbone):
    """The contracting half of U-Net: two 3 × 3 convolutions a level, max-pool between.

    Level `l` has `width · 2**l` channels and stride `2**l`; level 0 has the size of the
    image. With the neck "unet", transposed upsampling and a 1 × 1 convolution it is the
    network of the paper, which has 31,031,745 parameters for three channels and one
    class.

    Differs from the paper: maps are padded, so the result has the size of the image.

    Attributes:
      levels: Levels to return, out of 0 to 4.
      width: Channels of level 0.
      padding: "symmetric" is the only choice.
      norm: Normalization after every convolution: "batch", "group" or "none"; the
        paper has none. Convolutions have a bias only with "none".
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    native_size: ClassVar[int] = 572
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {"name": "pool"}
    """The paper has no classifier; this one pools the coarsest map."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    levels: tuple[int, ...] = LEVELS
    width: int = 64
    padding: str = "symmetric"
    norm: str = "none"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_levels("U-Net", self.levels, LEVELS)
        errors.one_of("padding", self.padding, PADDINGS)
        errors.at_least("width", self.width, 1, whole=True)
        check_norm(self.norm, self.width)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        return {level: self.width * 2**level for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        pools = dict.fromkeys(LEVELS[1:], (SlidingWindow(2, 2, "same"),))
        return {0: ()} | pools

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated.
        """
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        pyramid = {}
        for level in range(max(self.levels) + 1):
            if level:
                x = max_pool(x, 2, 2, "same")
            for index in (1, 2):
                convolution = ConvNorm(
                    self.width * 2**level,
                    kernel_size=3,
                    numerics=numerics,
                    name=f"level{level}_conv{index}",
                )
                x = nn.relu(convolution(x, train=train))
            pyramid[level] = x
        return {level: pyramid[level] for level in sorted(self.levels)}
