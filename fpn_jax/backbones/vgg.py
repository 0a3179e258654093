"""VGG: Very Deep Convolutional Networks for Image Recognition, arXiv 1409.1556."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels, check_unpadded
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import conv
from fpn_jax.layers.norm import norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import max_pool
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

LEVELS = (1, 2, 3, 4, 5)
POOLS = {
    "symmetric": SlidingWindow(2, 2, "same"),
    "paper": SlidingWindow(2, 2, "valid"),
}
"""`padding` → windows of the pools."""
PADDINGS = tuple(POOLS)
WIDENING = (1, 2, 4, 8, 8)


class Stage(nn.Module):
    """3 × 3 convolutions of one resolution, each with its ReLU, and a max-pool.

    Attributes:
      num_convs: Number of convolutions.
      features: Channels of each.
      pool: Window of the pool.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    num_convs: int
    features: int
    pool: SlidingWindow
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H / 2, W / 2, features]`, rounded as the pool pads."""
        for index in range(1, self.num_convs + 1):
            x = conv(
                self.features,
                3,
                dtype=self.numerics.dtype,
                name=f"conv{index}",
                use_bias=True,
            )(x)
            x = nn.relu(norm(self.numerics, train=train, name=f"norm{index}")(x))
        return max_pool(x, self.pool.size, self.pool.stride, self.pool.padding)


class VGG(WindowedBackbone):
    """A VGG network without its classifier (Simonyan & Zisserman, arXiv 1409.1556).

    Level `l` is the map after the `l`-th max-pool. Stages that no level needs are not
    built. The last cell of an odd map is pooled alone, so that sizes are
    `ceil(H / 2**l)`; with "paper" it is dropped, and sizes are `floor(H / 2**l)`. At
    224 px both give 112, 56, 28, 14 and 7 cells.

    Attributes:
      stage_sizes: Number of convolutions of each of the five stages.
      batch_norm: Whether every convolution is batch-normalized; it keeps its bias.
      width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      levels: Levels to return, out of 1 to 5.
      padding: "symmetric", or "paper" for pools that drop the last cell of odd maps.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    native_size: ClassVar[int] = 224
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {
        "name": "mlp",
        "grid": 7,
        "widths": (4096, 4096),
        "activation": "relu",
        "dropout": 0.5,
    }
    """Spec of the paper's classifier."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    stage_sizes: tuple[int, int, int, int, int]
    batch_norm: bool
    width: int = 64
    levels: tuple[int, ...] = (2, 3, 4, 5)
    padding: str = "symmetric"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        errors.at_least("width", self.width, 1, whole=True)
        check_levels("VGG", self.levels, LEVELS)
        errors.one_of("padding", self.padding, PADDINGS)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        return {
            level: self.width * WIDENING[level - 1] for level in sorted(self.levels)
        }

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        return dict.fromkeys(LEVELS, (POOLS[self.padding],))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, 3]`.
          train: Whether batch statistics are used and the running averages updated.

        Raises:
          InputError: With padding "paper" the images are too small.
        """
        coarsest = max(self.levels)
        if self.padding == "paper":
            check_unpadded("VGG", x, coarsest, 2**coarsest)
        kind = "batch" if self.batch_norm else "none"
        numerics = Numerics(self.dtype, self.axis_name, kind)
        pyramid = {}
        for level in range(1, coarsest + 1):
            x = pyramid[level] = Stage(
                num_convs=self.stage_sizes[level - 1],
                features=self.width * WIDENING[level - 1],
                pool=POOLS[self.padding],
                numerics=numerics,
                name=f"stage{level}",
            )(x, train=train)
        return {level: pyramid[level] for level in sorted(self.levels)}
