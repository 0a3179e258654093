"""Context blocks on the coarsest map: the necks of PSPNet and DeepLab v3."""

import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.context import ASPP, PPM
from fpn_jax.pyramid import Pyramid


class _ContextNeck(nn.Module):
    """What the two necks share; `_block(**fields)` makes the block of each."""

    num_scales = 1

    def __post_init__(self):
        # Raises where the block refuses an attribute.
        self._block(parent=None)
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> Pyramid:
        """Returns a pyramid of one level.

        Args:
          pyramid: Any pyramid.
          train: Whether batch statistics and dropout are those of training.
        """
        coarsest = max(pyramid)
        return {coarsest: self._block()(pyramid[coarsest], train=train)}


class PPMNeck(_ContextNeck):
    """The coarsest map alone, with the pyramid pooling module of PSPNet.

    See `fpn_jax.layers.context.PPM` (Zhao et al., arXiv 1612.01105).

    Attributes:
      bins: Cells a side of every grid that the map is pooled to.
      width: Channels from every grid; None shares the map's out: `C // len(bins)`.
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    bins: tuple[int, ...] = (1, 2, 3, 6)
    width: int | None = None
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result: the map's own and the grids'.

        Args:
          channels: Level → channels of the pyramid that is given.

        Raises:
          InputError: They leave no channel for every grid, or none that `norm` can do.
        """
        coarsest = max(channels)
        block = self._block(parent=None)
        return {coarsest: block.output_channels(channels[coarsest])}

    def _block(self, **fields) -> PPM:
        return PPM(
            bins=self.bins,
            width=self.width,
            norm=self.norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="ppm",
            **fields,
        )


class ASPPNeck(_ContextNeck):
    """The coarsest map alone, through the atrous spatial pyramid of DeepLab v3.

    See `fpn_jax.layers.context.ASPP` (Chen et al., arXiv 1706.05587).

    Attributes:
      width: Channels of the result and of every branch.
      rates: Dilations of the 3 × 3 convolutions, in cells.
      dropout: Share of the result that training drops, in [0, 1).
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    width: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    dropout: float = 0.5
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result.

        Args:
          channels: Level → channels of the pyramid that is given.
        """
        return {max(channels): self.width}

    def _block(self, **fields) -> ASPP:
        return ASPP(
            width=self.width,
            rates=self.rates,
            dropout=self.dropout,
            norm=self.norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="aspp",
            **fields,
        )
