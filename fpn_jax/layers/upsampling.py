"""Upsampling layers: `layer(x, size)` returns the map at that size.

Max-unpooling is not a layer, because it needs the indices of a max-pool, which a
pyramid does not contain. It is the function `fpn_jax.ops.unpooling.max_unpool`.
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
"""Ratio of the resolutions of neighbouring levels of a pyramid."""

EVERY_FOURTH_TAP = nn.initializers.variance_scaling(FACTOR**2, "fan_in", "uniform")
"""Keeps the variance of a map through a transposed convolution, in which a cell of the
result gets one in `FACTOR²` taps."""


def icnr(base: nn.initializers.Initializer, factor: int) -> nn.initializers.Initializer:
    """Makes an initializer with which a sub-pixel convolution starts as nearest.

    Aitken et al., "Checkerboard artifact free sub-pixel convolution", arXiv 1707.02937.
    The `factor²` channels that become cells of one channel start as copies of one
    kernel. The initial result is the nearest upsampling of a convolution by it.

    Args:
      base: Initializer of the kernel that is copied.
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
    """Copies cells: cell `i` of `m` is cell `i * n // m` of `n`; see `resize_nearest`.

    There are neither half-pixel centres, antialiasing nor aligned corners.
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

    Centres are half-pixel centres; corners are never aligned.

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

    See `fpn_jax.ops.unpooling.bed_of_nails`. The result has `2 n` cells and is cropped
    as in `Transposed`. Cell `i` becomes cells `2 i` and `2 i + 1`, without half-pixel
    centres. Corners are not aligned, and nothing is antialiased.
    """

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Returns `[B, *size, C]`, of the input's type.

        Args:
          x: Map, `[B, H, W, C]`.
          size: `2 H` or `2 H - 1`, and `2 W` or `2 W - 1`.

        Raises:
          InputError: `size` has another value.
        """
        return _crop(bed_of_nails(x, FACTOR), size)


class Transposed(nn.Module):
    """A transposed convolution of stride 2, with bias (arXiv 1603.07285).

    The result has `2 n` cells. It is cropped by one cell where the next finer level of
    a pyramid is odd. An even kernel is centred between cells `2 i` and `2 i + 1`, as
    with half-pixel centres, an odd kernel on cell `2 i`. Corners are not aligned, and
    nothing is antialiased.

    Attributes:
      features: Channels of the result; None keeps those of the map.
      kernel_size: Height and width of the kernel, at least 2. With a multiple of 2,
        every cell of the result gets equally many taps, which avoids checkerboards.
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
          InputError: `size` has another value.
        """
        channels = x.shape[-1]
        features = self.features or channels
        shape = (self.kernel_size, self.kernel_size, channels, features)
        kernel = self.param("kernel", EVERY_FOURTH_TAP, shape)
        bias = self.param("bias", nn.initializers.zeros, (features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        # The size is (n - 1) 2 - 2 p + k + o = 2 n, with o = 1 where k is odd.
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

    Shi et al., arXiv 1609.05158. The layer starts as the nearest upsampling of a
    convolution (`icnr`). The result has `2 n` cells and is cropped as in `Transposed`.
    Cell `i` becomes cells `2 i` and `2 i + 1`, as with half-pixel centres. Corners are
    not aligned, and nothing is antialiased.

    Attributes:
      features: Channels of the result; None keeps those of the map.
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
          InputError: `size` has another value.
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
    those of the resize: half-pixel centres, except for "nearest", which copies cells.
    Corners are not aligned, and only "lanczos" is antialiased.

    Attributes:
      features: Channels of the result; None keeps those of the map.
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
            f"size is {tuple(size)}; upsampling a map of {height // FACTOR} × "
            f"{width // FACTOR} cells by {FACTOR} gives {height} or {height - 1} rows "
            f"and {width} or {width - 1} columns; for another size choose a resize, "
            "such as 'bilinear'"
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
