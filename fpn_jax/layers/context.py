"""Context blocks: they add information from around a cell, near and far."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.depthwise import SeparableConvNorm
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import global_average_pool
from fpn_jax.ops.spatial_pyramid import adaptive_average_pool
from fpn_jax.ops.upsampling import resize_bilinear
from fpn_jax.registry import Registry


class PPM(nn.Module):
    """The pyramid pooling module of PSPNet (Zhao et al., arXiv 1612.01105).

    The map is pooled to grids of `bins` cells a side. Each grid goes through a 1 × 1
    convolution, normalization and a ReLU, is resized to the map, and is concatenated
    with it, in the order of `bins`, then the map. Coarse grids cover large parts of the
    image, so a cell gets information about the scene. As in the reference network, the
    bilinear resize aligns the centres of corner cells. The grid of one cell has a bias
    instead of batch normalization, which would set a 1 × 1 map of a batch of one to 0.
    The block equals segmentation_models.pytorch's `PSPModule`.

    Attributes:
      bins: Cells a side of every grid; a grid finer than the map repeats its cells.
      width: Channels from every grid; None gives each grid `C // len(bins)`.
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
            raise errors.InputError(
                f"bins are {tuple(self.bins)}; give each number once"
            )
        if self.width is not None:
            _check_width(self.width, self.norm)
        super().__post_init__()

    def output_channels(self, channels: int) -> int:
        """Returns the channels of the result.

        Args:
          channels: Channels of the map.

        Raises:
          InputError: The map has fewer channels than there are grids, or `norm` cannot
            normalize the channels of a grid.
        """
        return channels + len(self.bins) * self._width(channels)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H, W, output_channels(C)]`.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether batch statistics are used and the running averages updated.

        Raises:
          InputError: See `output_channels`.
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
                f"the map has {channels} channels, too few for {len(self.bins)} bins "
                "of at least one channel each; give a width"
            )
        check_norm(self.norm, width)
        return width


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v3 (Chen et al., arXiv 1706.05587).

    Parallel branches: a 1 × 1 convolution, 3 × 3 convolutions of several dilations, and
    the mean of the map. Their maps are concatenated and projected by a 1 × 1
    convolution. Each convolution has its own normalization and ReLU. The block equals
    torchvision's `deeplabv3.ASPP`.

    With a dilation as large as the map, the outer taps are over padding, and the
    convolution is a 1 × 1 convolution by its centre tap. The mean of the map has one
    cell, so batch normalization refuses to train on a single image, counted over all
    devices of `axis_name`.

    Attributes:
      width: Channels of every branch and of the result.
      rates: Dilations of the 3 × 3 convolutions, in cells: the paper's (6, 12, 18) are
        for output stride 16, and doubled for 8.
      dropout: Share of the result that training drops, in [0, 1).
      separable: Whether the 3 × 3 convolutions are depthwise and then 1 × 1, as in
        DeepLab v3+.
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    width: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    dropout: float = 0.5
    separable: bool = False
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        _check_width(self.width, self.norm)
        _check_sizes("rates", self.rates)
        errors.within("dropout", self.dropout, 0, 1, open_high=True)
        super().__post_init__()

    def output_channels(self, channels: int) -> int:
        """Returns the channels of the result, which do not depend on the map's."""
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
        layer = SeparableConvNorm if self.separable and kernel_size > 1 else ConvNorm
        branch = layer(
            self.width, kernel_size, dilation=dilation, numerics=numerics, name=name
        )
        return nn.relu(branch(x, train=train))


class NoContext(nn.Module):
    """Returns the map unchanged."""

    def output_channels(self, channels: int) -> int:
        """Returns the channels of the result, which are those of the map."""
        return channels

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `x`; `train` makes no difference."""
        return x


CONTEXTS = {"none": NoContext, "ppm": PPM, "aspp": ASPP}
"""Name → constructor."""

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
