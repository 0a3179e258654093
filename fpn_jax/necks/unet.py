"""U-Net: Convolutional Networks for Biomedical Image Segmentation, arXiv 1505.04597."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from fpn_jax import errors
from fpn_jax.layers import upsampling
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.necks.single_scale import SingleScaleNeck
from fpn_jax.pyramid import Pyramid
from fpn_jax.registry import Spec


class UNet(SingleScaleNeck):
    """The decoder of U-Net: upsample, concatenate the finer map, convolve twice.

    `D_l = conv(conv([upsample(D_{l+1}), C_l]))`, with a ReLU after every 3 × 3
    convolution, from the coarsest level, `D = C`, to the finest one. A map is upsampled
    to the size of the finer one, so any image size works.

    Differs from the paper: maps are padded, so nothing is cropped.

    Attributes:
      widths: Channels of `D_l` of every level that is made, the coarsest first.
      upsampling: How a map is upsampled: one of `fpn_jax.layers.upsampling.names()`, or
        a dict with `name` and its own arguments. The paper's is "transposed", with as
        many channels as `D_l`; segmentation_models.pytorch uses "nearest".
      finer_levels: Number of levels finer than the finest one of the backbone, without
        a map to concatenate. Such a map has twice the cells of the map before, which at
        odd sizes is one more than the level has.
      norm: Normalization after every convolution: "batch", "group" or "none"; the
        paper has none. Convolutions have a bias only with "none".
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    widths: tuple[int, ...] = (256, 128, 64)
    upsampling: Spec = "nearest"
    finer_levels: int = 0
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if not self.widths:
            raise errors.InputError("widths are (); give one or more")
        for width in self.widths:
            errors.at_least("one of the widths", width, 1, whole=True)
            check_norm(self.norm, width)
        errors.within("finer_levels", self.finer_levels, 0, len(self.widths))
        self.upsampling = FrozenDict(upsampling.REGISTRY.spec(self.upsampling))
        # Building it refuses unknown names, arguments and values.
        self._upsampling(self.widths[0], parent=None)
        super().__post_init__()

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result.

        Args:
          channels: Level → channels of the pyramid that is given.

        Raises:
          InputError: The number of widths is not the number of levels to make, or a
            level in between is missing.
        """
        levels = self._made(channels)
        return dict(sorted(zip(levels, self.widths, strict=True)))

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> Pyramid:
        """Returns the maps that were made, finest first.

        Args:
          pyramid: Maps of consecutive levels.
          train: Whether batch statistics are used and the running averages updated.

        Raises:
          InputError: See `output_channels`.
        """
        x, result = pyramid[max(pyramid)], {}
        for level, width in zip(self._made(pyramid), self.widths, strict=True):
            skip = pyramid.get(level)
            size = skip.shape[1:3] if skip is not None else _doubled(x)
            x = self._upsampling(width, name=f"upsample{level}")(x, size)
            if skip is not None:
                x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
            for index in (1, 2):
                convolution = ConvNorm(
                    width,
                    kernel_size=3,
                    numerics=Numerics(self.dtype, self.axis_name, self.norm),
                    name=f"level{level}_conv{index}",
                )
                x = nn.relu(convolution(x, train=train))
            result[level] = x
        return dict(sorted(result.items()))

    def _made(self, given) -> list[int]:
        """Returns the levels of the result, the coarsest first."""
        coarsest, finest = max(given), min(given) - self.finer_levels
        levels = list(range(coarsest - 1, finest - 1, -1))
        absent = sorted(set(levels) - set(given) - set(range(finest, min(given))))
        if absent or finest < 0 or len(levels) != len(self.widths):
            raise errors.InputError(
                f"U-Net makes one level for each of its {len(self.widths)} widths, but "
                f"from the levels {tuple(sorted(given))} and {self.finer_levels} finer "
                f"ones it would make {tuple(levels)}; give consecutive levels and as "
                "many widths"
            )
        return levels

    def _upsampling(self, width: int, **given) -> nn.Module:
        name = self.upsampling["name"]
        if "features" in upsampling.accepts(name):
            given["features"] = width
        return upsampling.build(self.upsampling, given | {"dtype": self.dtype})


def _doubled(x: jax.Array) -> tuple[int, int]:
    return 2 * x.shape[1], 2 * x.shape[2]
