"""Context blocks: what lies around a cell, near and far, beside the cell itself."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import global_average_pool
from fpn_jax.ops.spatial_pyramid import adaptive_average_pool
from fpn_jax.ops.upsampling import resize_bilinear
from fpn_jax.registry import Registry


class PPM(nn.Module):
    """The pyramid pooling module of PSPNet (Zhao et al., arXiv 1612.01105).

    The map is pooled to grids of `bins` cells a side; each goes through a 1 × 1
    convolution, normalization and a ReLU, is resized to the map and joined with it.
    Coarse grids see the whole image, so a cell knows what scene it is in. As in the
    reference network, bilinear resizing aligns the corners' centres. The grid of one
    cell has a bias instead of batch normalization, which over a 1 × 1 map of a batch of
    one would leave nothing of it. The order is that of `bins`, then the map. The same
    as segmentation_models.pytorch's `PSPModule`.

    Attributes:
      bins: Cells a side of every grid; a grid finer than the map repeats its cells.
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

    def __post_init__(self):
        _check_sizes("bins", self.bins)
        if len(set(self.bins)) < len(self.bins):
            raise errors.InputError(f"bins are {tuple(self.bins)}; each is named once")
        if self.width is not None:
            _check_width(self.width, self.norm)
        super().__post_init__()

    def output_channels(self, channels: int) -> int:
        """Returns the channels of the result for a map of so many.

        Raises:
          InputError: They leave no channel for every grid, or none that `norm` can do.
        """
        return channels + len(self.bins) * self._width(channels)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H, W, output_channels(C)]`.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated.

        Raises:
          InputError: `C` leaves no channel for every grid, or none that `norm` can do.
        """
        width, maps = self._width(x.shape[-1]), []
        for bins in self.bins:
            without = bins == 1 and self.norm == "batch"
            numerics = Numerics(
                dtype=self.dtype,
                axis_name=self.axis_name,
                norm="none" if without else self.norm,
            )
            y = ConvNorm(width, kernel_size=1, numerics=numerics, name=f"bin{bins}")(
                adaptive_average_pool(x, bins), train=train
            )
            maps.append(resize_bilinear(nn.relu(y), x.shape[1:3], align_corners=True))
        return jnp.concatenate([*maps, x.astype(self.dtype)], axis=-1)

    def _width(self, channels: int) -> int:
        if self.width is not None:
            return self.width
        width = channels // len(self.bins)
        if not width:
            raise errors.InputError(
                f"{channels} channels are fewer than the {len(self.bins)} bins that "
                "share them; give a width"
            )
        check_norm(self.norm, width)
        return width


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v3 (Chen et al., arXiv 1706.05587).

    A 1 × 1 convolution, 3 × 3 convolutions of several dilations and the mean of the
    whole map, side by side; their maps are joined and projected by a 1 × 1 convolution.
    Each convolution has its normalization and ReLU. The same as torchvision's
    `deeplabv3.ASPP`.

    A dilation as large as the map leaves its outer taps in the padding: the convolution
    is then its centre tap alone, a 1 × 1. The mean of the map is batch-normalized over
    the batch alone, so in training on one image (of all devices of `axis_name`) that
    branch is its bias, whatever the image.

    Attributes:
      width: Channels of every branch and of the result.
      rates: Dilations of the 3 × 3 convolutions, in cells: the paper's (6, 12, 18) are
        for output stride 16, and doubled for 8.
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

    def __post_init__(self):
        _check_width(self.width, self.norm)
        _check_sizes("rates", self.rates)
        errors.within("dropout", self.dropout, 0, 1, open_high=True)
        super().__post_init__()

    def output_channels(self, channels: int) -> int:
        """Returns the channels of the result, whatever those of the map."""
        return self.width

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H, W, width]`.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated,
            and dropout is active.
        """
        maps = [self._branch(x, "point", train)]
        for index, rate in enumerate(self.rates, 1):
            maps.append(self._branch(x, f"dilated{index}", train, 3, rate))
        mean = global_average_pool(x)[:, None, None]
        image = self._branch(mean, "image", train)
        maps.append(jnp.broadcast_to(image, maps[0].shape))
        y = self._branch(jnp.concatenate(maps, axis=-1), "project", train)
        return nn.Dropout(self.dropout, deterministic=not train)(y)

    def _branch(self, x, name, train, kernel_size=1, dilation=1):
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        branch = ConvNorm(
            self.width, kernel_size, dilation=dilation, numerics=numerics, name=name
        )
        return nn.relu(branch(x, train=train))


class NoContext(nn.Module):
    """The map as it is."""

    def output_channels(self, channels: int) -> int:
        """Returns the channels of the result for a map of so many."""
        return channels

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `x`; `train` makes no difference."""
        return x


CONTEXTS = {"none": NoContext, "ppm": PPM, "aspp": ASPP}
"""Name → constructor of a block that a map goes through."""

REGISTRY = Registry(
    "context", CONTEXTS, base=nn.Module, members=("__call__", "output_channels")
)
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build


def _check_sizes(name: str, sizes: Sequence[int]) -> None:
    if not sizes:
        raise errors.InputError(f"{name} are (); give one or more")
    for size in sizes:
        errors.at_least(f"one of the {name}", size, 1, whole=True)


def _check_width(width: int, norm: str) -> None:
    errors.at_least("width", width, 1, whole=True)
    check_norm(norm, width)
