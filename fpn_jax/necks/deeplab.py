"""Encoder-Decoder with Atrous Separable Convolution (DeepLab v3+), arXiv 1802.02611."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.layers.context import ASPP
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.depthwise import SeparableConvNorm
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.necks.single_scale import SingleScaleNeck
from fpn_jax.ops.upsampling import resize_bilinear
from fpn_jax.pyramid import Pyramid, select_levels

RATES_AT_STRIDE_16 = (6, 12, 18)
"""Dilations of the paper for a coarsest map of stride 16, in cells."""


class DeepLab(SingleScaleNeck):
    """The decoder of DeepLab v3+: ASPP on the coarsest map, joined with a fine one.

    The coarsest map goes through ASPP and is resized bilinearly to the fine map. The
    fine map is reduced to `fine_width` channels by a 1 × 1 convolution. Both are
    concatenated and refined by 3 × 3 convolutions. The result has one level.

    Attributes:
      width: Channels of the ASPP and of the result.
      rates: Dilations of the ASPP, in cells; None gives the paper's (6, 12, 18) for a
        coarsest map of stride 16, the double of it for stride 8, and a half for 32, so
        that they span the same pixels.
      fine_level: Level of the fine map; the paper's has stride 4.
      fine_width: Channels that the fine map is reduced to.
      context_convolutions: Number of 3 × 3 convolutions between ASPP and resizing.
      convolutions: Number of 3 × 3 convolutions after the concatenation.
      separable: Whether the 3 × 3 convolutions, also those of the ASPP, are depthwise
        and then 1 × 1.
      dropout: Share of the ASPP's result that training drops, in [0, 1).
      align_corners: Whether the resize puts corner cells on corner cells.
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    width: int = 256
    rates: tuple[int, ...] | None = None
    fine_level: int = 2
    fine_width: int = 48
    context_convolutions: int = 0
    convolutions: int = 2
    separable: bool = False
    dropout: float = 0.5
    align_corners: bool = False
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        errors.at_least("width", self.width, 1, whole=True)
        errors.at_least("fine_width", self.fine_width, 1, whole=True)
        errors.at_least("context_convolutions", self.context_convolutions, 0)
        errors.at_least("convolutions", self.convolutions, 1, whole=True)
        check_norm(self.norm, self.fine_width)
        # Building the block refuses attributes that it cannot have.
        self._aspp(self.rates or RATES_AT_STRIDE_16, parent=None)
        super().__post_init__()

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns `{fine_level: width}`.

        Args:
          channels: Level → channels of the pyramid that is given.

        Raises:
          InputError: The fine level is not given, or no level is coarser.
        """
        if self.fine_level not in channels or max(channels) <= self.fine_level:
            raise errors.InputError(
                f"fine_level is {self.fine_level}; DeepLab needs it and a coarser one, "
                f"but the backbone has the levels {tuple(sorted(channels))}"
            )
        return {self.fine_level: self.width}

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> Pyramid:
        """Returns a pyramid of the fine level.

        Args:
          pyramid: Any pyramid with the fine level and a coarser one.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          ValueError: The fine level is missing.
        """
        coarsest = max(pyramid)
        fine = select_levels(pyramid, (self.fine_level,), "DeepLab")[self.fine_level]
        rates = self.rates or rates_at(coarsest)
        x = self._aspp(rates, name="aspp")(pyramid[coarsest], train=train)
        for index in range(1, self.context_convolutions + 1):
            x = self._convolved(x, f"context{index}", train)
        x = resize_bilinear(x, fine.shape[1:3], align_corners=self.align_corners)
        fine = ConvNorm(
            self.fine_width, kernel_size=1, numerics=self._numerics, name="fine"
        )(fine, train=train)
        x = jnp.concatenate([x, nn.relu(fine)], axis=-1)
        for index in range(1, self.convolutions + 1):
            x = self._convolved(x, f"refine{index}", train)
        return {self.fine_level: x}

    @property
    def _numerics(self) -> Numerics:
        return Numerics(self.dtype, self.axis_name, self.norm)

    def _convolved(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        layer = SeparableConvNorm if self.separable else ConvNorm
        convolution = layer(
            self.width, kernel_size=3, numerics=self._numerics, name=name
        )
        return nn.relu(convolution(x, train=train))

    def _aspp(self, rates: tuple[int, ...], **fields) -> ASPP:
        return ASPP(
            self.width,
            rates,
            self.dropout,
            self.separable,
            norm=self.norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
            **fields,
        )


def rates_at(coarsest: int) -> tuple[int, ...]:
    """Returns dilations that span as many pixels as those of the paper.

    Args:
      coarsest: Level of the coarsest map; the paper's is 4.

    Example:
      >>> rates_at(3), rates_at(4), rates_at(5)
      ((12, 24, 36), (6, 12, 18), (3, 6, 9))
    """
    scale = 2.0 ** (4 - coarsest)
    return tuple(max(1, round(rate * scale)) for rate in RATES_AT_STRIDE_16)
