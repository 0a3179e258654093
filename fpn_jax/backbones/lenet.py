"""LeNet-5: Gradient-Based Learning Applied to Document Recognition, LeCun et al. 1998.

Proceedings of the IEEE 86(11), pages 2278–2324.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.checks import check_levels, check_unpadded
from fpn_jax.backbones.windowed import WindowedBackbone
from fpn_jax.layers.conv import LECUN_UNIFORM, conv
from fpn_jax.ops.pooling import average_pool
from fpn_jax.ops.receptive_field import SlidingWindow
from fpn_jax.pyramid import Pyramid

LEVELS = (1, 2)
WINDOWS = {
    "symmetric": (SlidingWindow(5), SlidingWindow(2, 2, "same")),
    "paper": (SlidingWindow(5, 1, "valid"), SlidingWindow(2, 2, "valid")),
}
"""`padding` → windows of the convolution and of the pool of every stage."""
PADDINGS = tuple(WINDOWS)
LEAST = {1: 6, 2: 16}
"""Level → height and width of the smallest image with padding "paper", in pixels."""
WIDTHS = (6, 16)


class LeNet5(WindowedBackbone):
    """LeNet-5 without its classifier: 5 × 5 convolutions, tanh, average-pooling.

    Level `l` is the map after the `l`-th pool. Stages that no level needs are not
    built. With "paper" nothing is padded: 32 px give 14 and 5 cells.

    Differs from the paper, as usual implementations do: the second convolution reads
    all six maps for every output map; pools have no coefficients; the tanh is not
    scaled; the classifier ends in a softmax instead of radial basis functions.

    Attributes:
      levels: Levels to return, out of 1 and 2.
      padding: "symmetric", or "paper" for the paper's sizes.
      dtype: Type to compute in; parameters are float32.
    """

    native_size: ClassVar[int] = 32
    """Height and width of the paper's images, in pixels."""
    paper_head: ClassVar[dict] = {
        "name": "mlp",
        "grid": 5,
        "widths": (120, 84),
        "activation": "tanh",
        "dropout": 0.0,
    }
    """Spec of the paper's classifier."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS
    """Choices for `padding`."""

    levels: tuple[int, ...] = LEVELS
    padding: str = "symmetric"
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        check_levels("LeNet-5", self.levels, LEVELS)
        errors.one_of("padding", self.padding, PADDINGS)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, for the levels that are returned."""
        return {level: WIDTHS[level - 1] for level in sorted(self.levels)}

    @property
    def windows(self) -> dict[int, Sequence[SlidingWindow]]:
        """Level → windows that move centres, from the level before."""
        return dict.fromkeys(LEVELS, WINDOWS[self.padding])

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          x: Normalized images, `[B, H, W, C]`; those of the paper have one channel.
          train: Makes no difference here.

        Raises:
          InputError: With padding "paper" the images are too small.
        """
        convolution, pool = WINDOWS[self.padding]
        pyramid, coarsest = {}, max(self.levels)
        if self.padding == "paper":
            check_unpadded("LeNet-5", x, coarsest, LEAST[coarsest])
        for level in range(1, coarsest + 1):
            x = conv(
                WIDTHS[level - 1],
                convolution.size,
                dtype=self.dtype,
                name=f"stage{level}",
                padding=convolution.padding,
                use_bias=True,
                kernel_init=LECUN_UNIFORM,
            )(x)
            x = average_pool(nn.tanh(x), pool.size, pool.stride, pool.padding)
            pyramid[level] = x
        return {level: pyramid[level] for level in sorted(self.levels)}
