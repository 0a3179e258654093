"""Upsampling as layers: `layer(x, size)` gives the map at that size.

Max-unpooling is none of them: it needs the indices that a max-pool found, which no
pyramid keeps. It is the function `fpn_jax.ops.unpooling.max_unpool`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from fpn_jax import errors
from fpn_jax.layers.conv import LECUN_UNIFORM, conv
from fpn_jax.ops import upsampling
from fpn_jax.ops.unpooling import bed_of_nails
from fpn_jax.registry import Registry

FACTOR = 2
"""How many times finer the next finer level of a pyramid is."""

EVERY_FOURTH_TAP = nn.initializers.variance_scaling(FACTOR**2, "fan_in", "uniform")
"""Keeps a map's variance through a transposed convolution, of whose taps a cell of the
result meets one in `FACTOR²`."""


def icnr(base: nn.initializers.Initializer, factor: int) -> nn.initializers.Initializer:
    """Makes the initial kernel of a sub-pixel convolution that starts as nearest.

    Aitken et al., "Checkerboard artifact free sub-pixel convolution", arXiv 1707.02937:
    the `factor²` channels that become one channel's cells start as copies of one
    kernel, so the result starts as the nearest upsampling of that one's convolution.

    Args:
      base: Draws the kernel that is copied.
      factor: Rows and columns that a cell becomes.

    Returns:
      An initializer of `[h, w, C, features * factor²]`.
    """

    def initialize(key, shape, dtype=jnp.float32):
        *leading, features = shape
        kernel = base(key, (*leading, features // factor**2), dtype)
        return jnp.repeat(kernel, factor**2, axis=-1)

    return initialize


class Nearest(nn.Module):
    """Copies cells: cell `i` of `m` is cell `i * n // m` of `n`.

    Neither half-pixel centres, antialiasing nor aligned corners; see `resize_nearest`.
    """

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, C]`, of the input's type.

        Args:
          x: Map, `[B, H, W, C]`.
          size: Height and width of the result, in cells.
        """
        return upsampling.resize_nearest(x, size)


class Bilinear(nn.Module):
    """Resizes with a triangle along both axes; see `resize_bilinear`.

    Attributes:
      antialias: Whether the triangle is stretched where the result is smaller.
      align_corners: Whether corner cells fall on corner cells, instead of half-pixel
        centres; not together with `antialias`.
    """

    antialias: bool = False
    align_corners: bool = False

    def __post_init__(self):
        upsampling.check_options(self.antialias, self.align_corners)
        super().__post_init__()

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, C]`, of the input's type.

        Args:
          x: Map, `[B, H, W, C]`.
          size: Height and width of the result, in cells.
        """
        return upsampling.resize_bilinear(
            x, size, antialias=self.antialias, align_corners=self.align_corners
        )


class Bicubic(nn.Module):
    """Resizes with the cubic convolution kernel along both axes; see `resize_bicubic`.

    Attributes:
      coefficient: The kernel's slope at 1: -0.5 (Keys, Pillow) or -0.75 (PyTorch).
      antialias: Whether the kernel is stretched where the result is smaller.
      align_corners: Whether corner cells fall on corner cells, instead of half-pixel
        centres; not together with `antialias`.
    """

    coefficient: float = -0.5
    antialias: bool = False
    align_corners: bool = False

    def __post_init__(self):
        upsampling.check_options(self.antialias, self.align_corners)
        super().__post_init__()

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, C]`, of the input's type.

        Args:
          x: Map, `[B, H, W, C]`.
          size: Height and width of the result, in cells.
        """
        return upsampling.resize_bicubic(
            x,
            size,
            coefficient=self.coefficient,
            antialias=self.antialias,
            align_corners=self.align_corners,
        )


class Lanczos(nn.Module):
    """Resizes with a windowed sinc along both axes; see `resize_lanczos`.

    Half-pixel centres; corners are never aligned.

    Attributes:
      antialias: Whether the kernel is stretched where the result is smaller.
    """

    antialias: bool = True

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, C]`, of the input's type.

        Args:
          x: Map, `[B, H, W, C]`.
          size: Height and width of the result, in cells.
        """
        return upsampling.resize_lanczos(x, size, antialias=self.antialias)


class BedOfNails(nn.Module):
    """Puts a cell at the upper left of 2 × 2 cells, the others zero.

    See `fpn_jax.ops.unpooling.bed_of_nails`. The result is `2 n` large, cropped as with
    `Transposed`. Cell `i` becomes cells `2 i` and `2 i + 1`: no half-pixel centres,
    nothing is aligned by corners or antialiased.
    """

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, C]`, of the input's type.

        Args:
          x: Map, `[B, H, W, C]`.
          size: `2 H` or `2 H - 1`, and `2 W` or `2 W - 1`.

        Raises:
          InputError: `size` is another.
        """
        return _crop(bed_of_nails(x, FACTOR), size)


class Transposed(nn.Module):
    """A transposed convolution of stride 2, with bias (arXiv 1603.07285).

    The result is `2 n` large, of which the next finer level of a pyramid keeps all or,
    where it is odd, all but the last cell. An even kernel lies centred over cells `2 i`
    and `2 i + 1`, as half-pixel centres have it, an odd one over cell `2 i`; corners
    are not aligned, and nothing is antialiased.

    Attributes:
      features: Channels of the result; None keeps the map's.
      kernel_size: Height and width of the kernel, 2 or more; a multiple of 2 reaches
        every cell of the result by equally many taps, which avoids checkerboards.
      dtype: Type to compute in; parameters are float32.
    """

    features: int | None = None
    kernel_size: int = 2
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        _check_learned(self.features, self.kernel_size, least=FACTOR)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, features]`.

        Args:
          x: Map, `[B, H, W, C]`.
          size: `2 H` or `2 H - 1`, and `2 W` or `2 W - 1`.

        Raises:
          InputError: `size` is another.
        """
        channels = x.shape[-1]
        features = self.features or channels
        shape = (self.kernel_size, self.kernel_size, channels, features)
        kernel = self.param("kernel", EVERY_FOURTH_TAP, shape)
        bias = self.param("bias", nn.initializers.zeros, (features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        # Exactly 2 n: (n - 1) 2 - 2 p + k + o, of which o makes an odd k even.
        x = upsampling.transposed_conv(
            x,
            kernel,
            stride=FACTOR,
            padding=(self.kernel_size - 1) // 2,
            output_padding=self.kernel_size % 2,
        )
        return _crop(x, size) + bias


class SubPixel(nn.Module):
    """A convolution to four times the channels, spread over 2 × 2 cells.

    Shi et al., arXiv 1609.05158; starts as a convolution of the nearest upsampling
    (`icnr`). The result is `2 n` large, cropped as with `Transposed`. Cell `i` becomes
    cells `2 i` and `2 i + 1`, as half-pixel centres have it: corners are not aligned,
    and nothing is antialiased.

    Attributes:
      features: Channels of the result; None keeps the map's.
      kernel_size: Height and width of the kernel, odd.
      dtype: Type to compute in; parameters are float32.
    """

    features: int | None = None
    kernel_size: int = 3
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        _check_learned(self.features, self.kernel_size, odd=True)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, features]`.

        Args:
          x: Map, `[B, H, W, C]`.
          size: `2 H` or `2 H - 1`, and `2 W` or `2 W - 1`.

        Raises:
          InputError: `size` is another.
        """
        x = conv(
            (self.features or x.shape[-1]) * FACTOR**2,
            self.kernel_size,
            dtype=self.dtype,
            name="conv",
            use_bias=True,
            kernel_init=icnr(LECUN_UNIFORM, FACTOR),
        )(x)
        return _crop(upsampling.depth_to_space(x, FACTOR), size)


class ResizeConvolution(nn.Module):
    """A resize to any size, then a convolution with bias.

    Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016. Centres are
    those of the resizing: half-pixel ones, but for "nearest", which copies; corners are
    not aligned, and only "lanczos" is antialiased.

    Attributes:
      features: Channels of the result; None keeps the map's.
      kernel_size: Height and width of the kernel, odd.
      resizing: "nearest", "bilinear", "bicubic" or "lanczos", with the defaults of its
        function.
      dtype: Type to compute in; parameters are float32.
    """

    features: int | None = None
    kernel_size: int = 3
    resizing: str = "nearest"
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        _check_learned(self.features, self.kernel_size, odd=True)
        errors.one_of("resizing", self.resizing, upsampling.RESIZINGS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, features]`.

        Args:
          x: Map, `[B, H, W, C]`.
          size: Height and width of the result, in cells.
        """
        return conv(
            self.features or x.shape[-1],
            self.kernel_size,
            dtype=self.dtype,
            name="conv",
            use_bias=True,
            kernel_init=LECUN_UNIFORM,
        )(upsampling.RESIZINGS[self.resizing](x, size))


UPSAMPLINGS = {
    "nearest": Nearest,
    "bilinear": Bilinear,
    "bicubic": Bicubic,
    "lanczos": Lanczos,
    "bed_of_nails": BedOfNails,
    "transposed": Transposed,
    "sub_pixel": SubPixel,
    "resize_convolution": ResizeConvolution,
}
"""Name → constructor."""

REGISTRY = Registry("upsampling", UPSAMPLINGS, base=nn.Module, members=("__call__",))
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build


def _crop(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    height, width = x.shape[1:3]
    if size[0] not in (height, height - 1) or size[1] not in (width, width - 1):
        raise errors.InputError(
            f"size is {tuple(size)}; an upsampling by {FACTOR} of a map of "
            f"{height // FACTOR} × {width // FACTOR} cells gives {height} or "
            f"{height - 1} rows and {width} or {width - 1} columns; choose a resizing "
            "for any other"
        )
    return x[:, : size[0], : size[1]]


def _check_learned(
    features: int | None, kernel_size: int, least: int = 1, odd: bool = False
) -> None:
    if features is not None:
        errors.at_least("features", features, 1, whole=True)
    errors.at_least("kernel_size", kernel_size, least, whole=True)
    if odd and kernel_size % 2 == 0:
        raise errors.InputError(f"kernel_size is {kernel_size}; it must be odd")
