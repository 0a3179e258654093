"""GoogLeNet, the first Inception: Going Deeper with Convolutions, arXiv 1409.4842."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels, check_unpadded
from fpn_jax.backbones.inception import EPSILON, Branch, Chain, Layer, Stage
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import max_pool
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

LEVELS = (1, 2, 3, 4, 5)
PADDINGS = ("symmetric", "paper")
LEAST = {1: 1, 2: 3, 3: 7, 4: 15, 5: 15}
"""Level → height and width of the smallest image with padding "paper", in pixels."""
CHANNELS = {1: 64, 2: 192, 3: 480, 4: 832, 5: 1024}


def block(
    one: int, reduced2: int, full2: int, reduced3: int, full3: int, behind_pool: int
) -> tuple[Branch, ...]:
    """Returns the branches of an inception block, figure 2 (b).

    Args:
      one: Channels of the 1 × 1 branch.
      reduced2: Channels of the second branch between its convolutions.
      full2: Channels of the second branch.
      reduced3: Channels of the third branch between its convolutions.
      full3: Channels of the third branch.
      behind_pool: Channels of the branch with the pool.
    """
    return (
        Branch((Layer(one, 1),)),
        Branch((Layer(reduced2, 1), Layer(full2, 3))),
        Branch((Layer(reduced3, 1), Layer(full3, 3))),
        Branch((Layer(behind_pool, 1),), pool="max"),
    )


STEM = SlidingWindow(7, 2)
STAGE1 = (Layer(64, 1), Layer(192, 3))
STAGES = {
    2: (block(64, 96, 128, 16, 32, 32), block(128, 128, 192, 32, 96, 64)),
    3: (
        block(192, 96, 208, 16, 48, 64),
        block(160, 112, 224, 24, 64, 64),
        block(128, 128, 256, 24, 64, 64),
        block(112, 144, 288, 32, 64, 64),
        block(256, 160, 320, 32, 128, 128),
    ),
    4: (block(256, 160, 320, 32, 128, 128), block(384, 192, 384, 48, 128, 128)),
}
"""Stage → its blocks, the rows of table 1."""


class GoogLeNet(WindowedBackbone):
    """GoogLeNet without its classifiers (Szegedy et al., arXiv 1409.4842).

    Level 1 is the map after the convolution of the stem; level `l` from 2 on is the map
    after stage `l - 1`, before the pool that follows. Stages that no level needs are
    not built. With "paper" the first window of a pool begins at the corner of the map,
    and the last one may end beyond it: 224 px give 112, 56, 28, 14 and 7 cells as with
    "symmetric", but 225 px give 113, 56, 28, 14 and 7.

    Differs from the paper, as torchvision does, whose weights fit: every convolution is
    batch-normalized, without local response normalization; the third branch has 3 × 3
    kernels instead of 5 × 5; the last pool has a 2 × 2 window instead of 3 × 3. There
    are no auxiliary classifiers.

    Attributes:
      levels: Levels to return, out of 1 to 5.
      padding: "symmetric", or "paper" for the reference network's pools.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    native_size: ClassVar[int] = 224
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {"name": "pool", "pool": "average", "dropout": 0.4}
    """Spec of the paper's classifier."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    levels: tuple[int, ...] = (2, 3, 4, 5)
    padding: str = "symmetric"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_levels("GoogLeNet", self.levels, LEVELS)
        errors.one_of("padding", self.padding, PADDINGS)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        return {level: CHANNELS[level] for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        # With "paper" a pool pads only after the map, which moves no centre.
        paper = self.padding == "paper"
        pool = SlidingWindow(3, 2, "valid" if paper else "symmetric")
        last = SlidingWindow(2, 2, "valid" if paper else "same")
        return {1: (STEM,), 2: (pool,), 3: (pool,), 4: (pool,), 5: (last,)}

    def _pool(self, x, window):
        if self.padding == "paper":
            beyond = [(0, (window - size) % 2) for size in x.shape[1:3]]
            return max_pool(x, window, stride=2, padding=beyond)
        padding = "symmetric" if window == 3 else "same"
        return max_pool(x, window, stride=2, padding=padding)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, 3]`.
          train: Whether batch statistics are used and the running averages updated.

        Raises:
          InputError: With padding "paper" the images are too small.
        """
        paper = self.padding == "paper"
        coarsest = max(self.levels)
        if paper:
            check_unpadded("GoogLeNet", x, coarsest, LEAST[coarsest])
        numerics = Numerics(self.dtype, self.axis_name, epsilon=EPSILON)
        stem = ConvNorm(64, STEM.size, STEM.stride, numerics=numerics, name="stem")
        pyramid = {1: nn.relu(stem(x, train=train))}
        for level in range(2, coarsest + 1):
            x = self._pool(pyramid[level - 1], window=2 if level == 5 else 3)
            if level == 2:
                stage = Chain(STAGE1, paper, numerics, name="stage1")
            else:
                blocks, name = STAGES[level - 1], f"stage{level - 1}"
                stage = Stage(blocks, paper, numerics, name=name)
            pyramid[level] = stage(x, train=train)
        return {level: pyramid[level] for level in sorted(self.levels)}
