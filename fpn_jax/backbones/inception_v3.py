"""Inception v3: Rethinking the Inception Architecture, arXiv 1512.00567."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels, check_unpadded
from fpn_jax.backbones.inception import EPSILON, Branch, Chain, Layer, Stage
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import max_pool
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

LEVELS = (1, 2, 3, 4, 5)
POOLS = {"symmetric": SlidingWindow(3, 2), "paper": SlidingWindow(3, 2, "valid")}
"""`padding` → windows of the pools between the stages."""
PADDINGS = tuple(POOLS)
LEAST = {1: 7, 2: 19, 3: 27, 4: 43, 5: 75}
"""Level → height and width of the smallest image with padding "paper", in pixels."""
CHANNELS = {1: 64, 2: 192, 3: 288, 4: 768, 5: 2048}


def square(behind_pool: int) -> tuple[Branch, ...]:
    """Returns the branches of a block of square kernels, figure 5.

    Args:
      behind_pool: Channels of the branch with the pool.
    """
    return (
        Branch((Layer(64, 1),)),
        Branch((Layer(48, 1), Layer(64, 5))),
        Branch((Layer(64, 1), Layer(96, 3), Layer(96, 3))),
        Branch((Layer(behind_pool, 1),), pool="average"),
    )


def factorized(inner: int) -> tuple[Branch, ...]:
    """Returns the branches of a block of 1 × 7 and 7 × 1 kernels, figure 6.

    Args:
      inner: Channels between the convolutions of a branch.
    """
    row, column = (1, 7), (7, 1)
    rows_and_columns = (Layer(inner, column), Layer(inner, row), Layer(inner, column))
    return (
        Branch((Layer(192, 1),)),
        Branch((Layer(inner, 1), Layer(inner, row), Layer(192, column))),
        Branch((Layer(inner, 1), *rows_and_columns, Layer(192, row))),
        Branch((Layer(192, 1),), pool="average"),
    )


def expanded() -> tuple[Branch, ...]:
    """Returns the branches of a block with expanded filter banks, figure 7."""
    row_and_column = (Layer(384, (1, 3)), Layer(384, (3, 1)))
    return (
        Branch((Layer(320, 1),)),
        Branch((Layer(384, 1),), forks=row_and_column),
        Branch((Layer(448, 1), Layer(384, 3)), forks=row_and_column),
        Branch((Layer(192, 1),), pool="average"),
    )


STEM = (Layer(32, 3, 2, trimmed=True), Layer(32, 3, trimmed=True), Layer(64, 3))
STAGE1 = (Layer(80, 1), Layer(192, 3, trimmed=True))
HALVING3 = (
    Branch((Layer(384, 3, 2, trimmed=True),)),
    Branch((Layer(64, 1), Layer(96, 3), Layer(96, 3, 2, trimmed=True))),
    Branch(pool="halve"),
)
"""Figure 10: parallel convolutions and a pool, of stride 2."""
HALVING4 = (
    Branch((Layer(192, 1), Layer(320, 3, 2, trimmed=True))),
    Branch(
        (
            *(Layer(192, 1), Layer(192, (1, 7)), Layer(192, (7, 1))),
            Layer(192, 3, 2, trimmed=True),
        )
    ),
    Branch(pool="halve"),
)
STAGES = {
    2: (square(32), square(64), square(64)),
    3: (HALVING3, *(factorized(inner) for inner in (128, 160, 160, 192))),
    4: (HALVING4, expanded(), expanded()),
}
"""Stage → its blocks, the rows of table 1."""


class InceptionV3(WindowedBackbone):
    """Inception v3 without its classifiers (Szegedy et al., arXiv 1512.00567).

    Level 1 is the map after the three convolutions of the stem; level `l` from 2 on is
    the map after stage `l - 1`. Stages that no level needs are not built. With "paper"
    neither windows with a stride nor two more convolutions of the first layers are
    padded: 299 px give 147, 71, 35, 17 and 8 cells.

    Differs from the paper: blocks and widths are those of the authors' code and of
    torchvision, whose weights fit; average pools inside the blocks count cells beyond
    the edge as zeros; there is no auxiliary classifier.

    Attributes:
      levels: Levels to return, out of 1 to 5.
      padding: "symmetric", or "paper" for the paper's sizes.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    native_size: ClassVar[int] = 299
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {"name": "pool", "pool": "average", "dropout": 0.5}
    """Spec of the paper's classifier, with torchvision's dropout."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    levels: tuple[int, ...] = (2, 3, 4, 5)
    padding: str = "symmetric"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_levels("Inception v3", self.levels, LEVELS)
        errors.one_of("padding", self.padding, PADDINGS)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        return {level: CHANNELS[level] for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        pool, paper = POOLS[self.padding], self.padding == "paper"

        def windows(layers):
            return [layer.window(paper) for layer in layers]

        # The branches of a block have the same centre, so the first one is enough.
        return {
            1: windows(STEM),
            2: [pool, *windows(STAGE1)],
            3: [pool],
            4: windows(HALVING3[0].layers),
            5: windows(HALVING4[0].layers),
        }

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
            check_unpadded("Inception v3", x, coarsest, LEAST[coarsest])
        numerics = Numerics(self.dtype, self.axis_name, epsilon=EPSILON)
        pool = POOLS[self.padding]
        pyramid = {1: Chain(STEM, paper, numerics, name="stem")(x, train=train)}
        for level in range(2, coarsest + 1):
            x = pyramid[level - 1]
            if level <= 3:
                x = max_pool(x, pool.size, pool.stride, pool.padding)
            if level == 2:
                stage = Chain(STAGE1, paper, numerics, name="stage1")
            else:
                blocks, name = STAGES[level - 1], f"stage{level - 1}"
                stage = Stage(blocks, paper, numerics, name=name)
            pyramid[level] = stage(x, train=train)
        return {level: pyramid[level] for level in sorted(self.levels)}
