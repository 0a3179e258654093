"""Context blocks on the coarsest map: the necks of PSPNet and DeepLab v3."""

import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.layers.context import ASPP, PPM
from fpn_jax.necks.single_scale import SingleScaleNeck
from fpn_jax.pyramid import Pyramid


class _ContextNeck(SingleScaleNeck, kw_only=True):
    """The coarsest map, through a block that `_make(**fields)` returns.

    Attributes:
      kept_levels: Finer levels that are passed on unchanged, for an auxiliary loss.
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    kept_levels: tuple[int, ...] = ()
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        # Building the block refuses attributes that it cannot have.
        self._block(parent=None)
        super().__post_init__()

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result: kept levels, and the coarsest one.

        Args:
          channels: Level → channels of the pyramid that is given.

        Raises:
          InputError: The coarsest map has too few channels for the block, or a kept
            level is not finer than it or is not given.
        """
        coarsest = max(channels)
        finer = sorted(set(channels) - {coarsest})
        if not set(self.kept_levels) <= set(finer):
            raise errors.InputError(
                f"kept_levels are {tuple(self.kept_levels)}; the levels that are finer "
                f"than the coarsest one are {tuple(finer)}"
            )
        block = self._block(parent=None)
        kept = {level: channels[level] for level in sorted(self.kept_levels)}
        return kept | {coarsest: block.output_channels(channels[coarsest])}

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> Pyramid:
        """Returns the kept levels, and the coarsest level after the block.

        Args:
          pyramid: Any pyramid.
          train: Whether batch statistics and dropout are those of training.
        """
        coarsest = max(pyramid)
        kept = {level: pyramid[level] for level in sorted(self.kept_levels)}
        return kept | {coarsest: self._block()(pyramid[coarsest], train=train)}

    def _block(self, **fields) -> PPM | ASPP:
        shared = {"norm": self.norm, "dtype": self.dtype, "axis_name": self.axis_name}
        return self._make(**shared, **fields)


class PPMNeck(_ContextNeck):
    """The coarsest map, with the pyramid pooling module of PSPNet.

    See `fpn_jax.layers.context.PPM` (Zhao et al., arXiv 1612.01105).

    Attributes:
      bins: Cells a side of every grid that the map is pooled to.
      width: Channels from every grid; None gives each grid `C // len(bins)`.
      kept_levels: Finer levels that are passed on unchanged, for an auxiliary loss.
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    bins: tuple[int, ...] = (1, 2, 3, 6)
    width: int | None = None

    def _make(self, **fields) -> PPM:
        return PPM(self.bins, self.width, name="ppm", **fields)


class ASPPNeck(_ContextNeck):
    """The coarsest map, through the atrous spatial pyramid of DeepLab v3.

    See `fpn_jax.layers.context.ASPP` (Chen et al., arXiv 1706.05587).

    Attributes:
      width: Channels of the result and of every branch.
      rates: Dilations of the 3 × 3 convolutions, in cells.
      dropout: Share of the result that training drops, in [0, 1).
      separable: Whether the 3 × 3 convolutions are depthwise and then 1 × 1.
      kept_levels: Finer levels that are passed on unchanged, for an auxiliary loss.
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    width: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    dropout: float = 0.5
    separable: bool = False

    def _make(self, **fields) -> ASPP:
        return ASPP(
            self.width,
            self.rates,
            self.dropout,
            self.separable,
            name="aspp",
            **fields,
        )
