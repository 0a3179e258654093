"""AlexNet: ImageNet Classification with Deep Convolutional Neural Networks, 2012.

In one tower: One Weird Trick for Parallelizing Convolutional Neural Networks, arXiv
1404.5997.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels, check_unpadded
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import conv
from fpn_jax.ops.normalization import local_response_norm
from fpn_jax.ops.pooling import max_pool
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

LEVELS = (2, 3, 4, 5)
WINDOWS = {
    "symmetric": (SlidingWindow(11, 4), SlidingWindow(3, 2)),
    "paper": (SlidingWindow(11, 4, 2), SlidingWindow(3, 2, "valid")),
}
"""`padding` → windows of the stem and of every pool."""
PADDINGS = tuple(WINDOWS)
LEAST = {2: 7, 3: 15, 4: 31, 5: 63}
"""Level → height and width of the smallest image with padding "paper", in pixels."""
STEM = 64
STAGES = (((192, 5),), ((384, 3), (256, 3), (256, 3)))
"""Channels and kernel size of every convolution of the two stages."""
ALPHA = 5e-4
"""The paper's 1e-4 weighs a sum over 5 channels; this weighs their mean."""


class Stage(nn.Module):
    """Convolutions of one resolution, each with its ReLU.

    Attributes:
      convs: Channels and kernel size of each, in cells.
      dtype: Type to compute in; parameters are float32.
    """

    convs: tuple[tuple[int, int], ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, H, W, C]`, with as many cells as `x`."""
        for index, (features, kernel_size) in enumerate(self.convs, start=1):
            layer = conv(
                features,
                kernel_size,
                dtype=self.dtype,
                name=f"conv{index}",
                use_bias=True,
            )
            x = nn.relu(layer(x))
        return x


class AlexNet(WindowedBackbone):
    """AlexNet without its classifier (Krizhevsky et al., in one tower).

    The first convolution has stride 4, so there is no level 1. Levels 2, 3 and 4 are
    the maps after the first, the second and the fifth convolution, each before the pool
    that follows; level 5 is the map after the last pool. Stages that no level needs are
    not built. With "paper" the stem is padded by 2 cells and pools are not padded:
    224 px give 55, 27, 13 and 6 cells.

    Differs from the papers: widths are 64, 192, 384, 256 and 256 as in torchvision, no
    convolution is split into groups, and biases start at 0.

    Attributes:
      local_response_norm: Whether the maps of the first two convolutions are
        normalized over neighbouring channels, by the formula of 2012 as printed:
        `x / (2 + 1e-4 Σ x²)^0.75`, the sum over five channels.
      levels: Levels to return, out of 2 to 5.
      padding: "symmetric", or "paper" for the paper's sizes.
      dtype: Type to compute in; parameters are float32.
    """

    native_size: ClassVar[int] = 224
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {
        "name": "mlp",
        "grid": 6,
        "widths": (4096, 4096),
        "activation": "relu",
        "dropout": 0.5,
    }
    """Spec of the paper's classifier."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    local_response_norm: bool
    levels: tuple[int, ...] = LEVELS
    padding: str = "symmetric"
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        check_levels("AlexNet", self.levels, LEVELS)
        errors.one_of("padding", self.padding, PADDINGS)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        widths = (STEM, *(convs[-1][0] for convs in STAGES), STAGES[-1][-1][0])
        return {level: widths[level - 2] for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        stem, pool = WINDOWS[self.padding]
        return dict.fromkeys(LEVELS, (pool,)) | {2: (stem,)}

    def _normalized(self, x):
        return local_response_norm(x, alpha=ALPHA) if self.local_response_norm else x

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, 3]`.
          train: Makes no difference here.

        Raises:
          InputError: With padding "paper" the images are too small.
        """
        window, pool = WINDOWS[self.padding]
        coarsest = max(self.levels)
        if self.padding == "paper":
            check_unpadded("AlexNet", x, coarsest, LEAST[coarsest])
        stem = conv(
            STEM,
            window.size,
            window.stride,
            dtype=self.dtype,
            name="stem",
            padding=window.padding,
            use_bias=True,
        )
        x = nn.relu(stem(x))
        pyramid = {2: self._normalized(x)}
        for level in range(3, coarsest + 1):
            x = max_pool(pyramid[level - 1], pool.size, pool.stride, pool.padding)
            if level < 5:
                x = Stage(STAGES[level - 3], self.dtype, name=f"stage{level - 2}")(x)
            pyramid[level] = self._normalized(x) if level == 3 else x
        return {level: pyramid[level] for level in sorted(self.levels)}
