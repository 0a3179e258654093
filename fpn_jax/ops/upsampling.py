"""Upsampling: resizing by fixed weights, and the operations of learned upsampling.

The inverses of pooling operations are in `fpn_jax.ops.unpooling`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors
from fpn_jax.ops.kernels.resampling import Kernel, resample
from fpn_jax.ops.kernels.windows import check_size

_SMALL_INTEGERS = (jnp.int8, jnp.uint8, jnp.int16, jnp.uint16)
"""Types whose values float32 represents exactly."""


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes maps by copying cells: output cell `i` is input cell `i * n // m`.

    `n` and `m` are the lengths of the input and the output. From a level of a pyramid
    to the next finer one this is cell `i // 2`, for even and odd lengths: the cell
    whose stride covers output cell `i`. `jax.image.resize` copies from
    `(i + 1/2) * n / m` instead, which shifts the middle of an odd map by a cell. There
    is no antialiasing, and corners are not aligned.

    Args:
      x: Maps, `[B, H, W, C]`.
      size: Height and width of the result, in cells.

    Returns:
      Maps, `[B, *size, C]`, of the input's type.

    Raises:
      InputError: A length of `size` is below 1.

    Example:
      >>> x = jnp.arange(3.0).reshape(1, 1, 3, 1)
      >>> resize_nearest(x, (1, 5))[0, 0, :, 0].tolist()
      [0.0, 0.0, 1.0, 1.0, 2.0]
    """
    for axis, length in zip((1, 2), check_size("size", size), strict=True):
        x = _copy_along_axis(x, axis, length)
    return x


def resize_bilinear(
    x: jax.Array,
    size: tuple[int, int],
    *,
    antialias: bool = False,
    align_corners: bool = False,
) -> jax.Array:
    """Resizes maps with the triangle `max(1 - |t|, 0)` along both axes.

    The centre of output cell `i` is at `(i + 1/2) * n / m - 1/2` input cells
    (half-pixel centres), where `n` and `m` are the lengths of the input and the output.
    Beyond the border, the border cells are repeated. Weights are applied in float32,
    along one axis and then the other, so any size works, larger and smaller.

    Args:
      x: Maps, `[B, H, W, C]`, floating.
      size: Height and width of the result, in cells.
      antialias: Whether the triangle is stretched by `n / m` where the result is
        smaller, so that every input cell counts.
      align_corners: Whether output cell `i` is at `i * (n - 1) / (m - 1)` instead, so
        that corner cells fall on corner cells; not together with `antialias`.

    Returns:
      Maps, `[B, *size, C]`, of the input's type.

    Raises:
      InputError: A length of `size` is below 1, or both options are on.
      ValueError: The maps are neither floating nor small integers, which are rounded
        and clipped to their range.

    Example:
      >>> x = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
      >>> resize_bilinear(x, (1, 4))[0, 0, :, 0].tolist()
      [0.0, 1.0, 3.0, 4.0]
      >>> resize_bilinear(x, (1, 5), align_corners=True)[0, 0, :, 0].tolist()
      [0.0, 1.0, 2.0, 3.0, 4.0]
    """

    def triangle(t: np.ndarray) -> np.ndarray:
        return np.maximum(1 - np.abs(t), 0)

    return _resize(x, size, triangle, 1, antialias, align_corners)


def resize_bicubic(
    x: jax.Array,
    size: tuple[int, int],
    *,
    coefficient: float = -0.5,
    antialias: bool = False,
    align_corners: bool = False,
) -> jax.Array:
    """Resizes maps with the cubic convolution kernel along both axes.

    `(a + 2) |t|³ - (a + 3) t² + 1` up to `|t| = 1`, then
    `a (|t|³ - 5 t² + 8 |t| - 4)` up to 2 (Keys, "Cubic convolution interpolation for
    digital image processing", 1981). Centres are half-pixel centres. Without
    `antialias` the border cells are repeated; with it, the kernel ends at the border
    and the remaining weights are scaled to sum 1, as in Pillow. Weights are applied in
    float32.

    Args:
      x: Maps, `[B, H, W, C]`, floating.
      size: Height and width of the result, in cells.
      coefficient: `a`, the kernel's slope at 1. -0.5, the default, reproduces parabolas
        (Keys, Pillow, JAX, PyTorch with antialiasing); -0.75 is sharper (OpenCV, and
        PyTorch without antialiasing).
      antialias: Whether the kernel is stretched where the result is smaller.
      align_corners: Whether corner cells fall on corner cells; see `resize_bilinear`.

    Returns:
      Maps, `[B, *size, C]`, of the input's type.

    Raises:
      InputError: A length of `size` is below 1, or both options are on.
      ValueError: The maps are neither floating nor small integers, which are rounded
        and clipped to their range.

    Example:
      >>> x = jnp.array([0.0, 0.0, 16.0, 16.0]).reshape(1, 1, 4, 1)
      >>> resize_bicubic(x, (1, 5), align_corners=True)[0, 0, :, 0].tolist()
      [0.0, -1.125, 8.0, 17.125, 16.0]
    """

    def cubic(t: np.ndarray) -> np.ndarray:
        a, t = coefficient, np.abs(t)
        near = ((a + 2) * t - (a + 3)) * t**2 + 1
        far = a * (((t - 5) * t + 8) * t - 4)
        return np.where(t <= 1, near, np.where(t < 2, far, 0))

    return _resize(x, size, cubic, 2, antialias, align_corners)


def resize_lanczos(
    x: jax.Array, size: tuple[int, int], *, antialias: bool = True
) -> jax.Array:
    """Resizes maps with the Lanczos-3 kernel `sinc(t) sinc(t / 3)` along both axes.

    Centres are half-pixel centres. Corners are never aligned, because the windowed sinc
    is a filter for the sampling grid, which half-pixel centres keep. Without
    `antialias` the border cells are repeated; with it, the kernel ends at the border,
    as in Pillow. The weights of a cell are scaled to sum 1 and applied in float32.

    Args:
      x: Maps, `[B, H, W, C]`, floating.
      size: Height and width of the result, in cells.
      antialias: Whether the kernel is stretched where the result is smaller, as in
        Pillow.

    Returns:
      Maps, `[B, *size, C]`, of the input's type.

    Raises:
      InputError: A length of `size` is below 1.
      ValueError: The maps are neither floating nor small integers, which are rounded
        and clipped to their range.

    Example:
      >>> x = jnp.array([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 4, 1)
      >>> print(resize_lanczos(x, (1, 2))[0, 0, :, 0].round(2))
      [0.07 0.93]
    """

    def lanczos(t: np.ndarray) -> np.ndarray:
        return np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0)

    return _resize(x, size, lanczos, 3, antialias, align_corners=False)


RESIZINGS = {
    "nearest": resize_nearest,
    "bilinear": resize_bilinear,
    "bicubic": resize_bicubic,
    "lanczos": resize_lanczos,
}
"""Name → function that resizes maps to a size."""


def check_options(antialias: bool, align_corners: bool) -> None:
    """Refuses options of a resize that exclude each other.

    Args:
      antialias: Whether the kernel is stretched where the result is smaller.
      align_corners: Whether corner cells fall on corner cells.

    Raises:
      InputError: Both are on.
    """
    if antialias and align_corners:
        raise errors.InputError(
            "antialias and align_corners are both on; the stretched kernel is defined "
            "for half-pixel centres, so choose one"
        )


def transposed_conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> jax.Array:
    """Adds every cell, times the kernel, to the result: the gradient of a convolution.

    `y[s i + d a - p] += x[i] · K[a]` along both axes, for cell `i` and tap `a`
    (Dumoulin & Visin, arXiv 1603.07285). The arguments are those of PyTorch's
    `ConvTranspose2d`. The centre of the kernel is at the half-pixel centre of its cell
    if `d (h - 1) - 2 p = s - 1`. Corners are not aligned, and nothing is antialiased.

    Args:
      x: Maps, `[B, H, W, C]`.
      kernel: `[h, w, C, features]`.
      stride: Distance of two input cells in the result, `s`, in cells.
      padding: Cells removed from every side, `p`.
      output_padding: Cells added to the lower and the right side, smaller than `stride`
        or `dilation`. A strided convolution maps several sizes to one; this chooses
        among them.
      dilation: Distance of neighbouring taps of the kernel, `d`, in cells.

    Returns:
      `[B, (H - 1) s - 2 p + d (h - 1) + output_padding + 1, W', features]`.

    Raises:
      InputError: A number is out of its range, or the result would be empty.

    Example:
      >>> x = jnp.array([1.0, 10.0]).reshape(1, 1, 2, 1)
      >>> kernel = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
      >>> transposed_conv(x, kernel, stride=2)[0, 0, :, 0].tolist()
      [1.0, 2.0, 13.0, 20.0, 30.0]
    """
    errors.at_least("stride", stride, 1, whole=True)
    errors.at_least("dilation", dilation, 1, whole=True)
    errors.at_least("padding", padding, 0, whole=True)
    errors.at_least("output_padding", output_padding, 0, whole=True)
    if output_padding >= max(stride, dilation):
        raise errors.InputError(
            f"output_padding is {output_padding}; it must be smaller than the stride, "
            f"{stride}, or the dilation, {dilation}"
        )
    spans = [dilation * (length - 1) for length in kernel.shape[:2]]
    for length, span in zip(x.shape[1:3], spans, strict=True):
        if (length - 1) * stride - 2 * padding + span + output_padding < 0:
            raise errors.InputError(
                f"padding is {padding}, which removes every cell of the result for a "
                f"map of {x.shape[1]} × {x.shape[2]} cells"
            )
    return jax.lax.conv_general_dilated(
        x,
        jnp.flip(kernel, (0, 1)),
        window_strides=(1, 1),
        padding=[(s - padding, s - padding + output_padding) for s in spans],
        lhs_dilation=(stride, stride),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """Spreads groups of `factor²` channels over `factor × factor` cells.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network", arXiv 1609.05158. Channel
    `(c * factor + i) * factor + j` becomes row `i`, column `j` of channel `c`. This is
    the order of PyTorch's `pixel_shuffle`; TensorFlow's has `c` last. With factor 2,
    cell `i` becomes cells `2 i` and `2 i + 1`, as with half-pixel centres. Corners are
    not aligned, and nothing is antialiased.

    Args:
      x: Maps, `[B, H, W, C * factor²]`.
      factor: Rows and columns that a cell becomes; at least 1.

    Returns:
      Maps, `[B, H * factor, W * factor, C]`.

    Raises:
      InputError: The factor is below 1.
      ValueError: The channels are no multiple of `factor²`.

    Example:
      >>> depth_to_space(jnp.arange(4.0).reshape(1, 1, 1, 4), 2)[0, :, :, 0].tolist()
      [[0.0, 1.0], [2.0, 3.0]]
    """
    check_size("factor", factor)
    batch, height, width, channels = x.shape
    if channels % factor**2:
        raise ValueError(
            f"maps have {channels} channels; depth_to_space by {factor} needs a "
            f"multiple of {factor**2}"
        )
    channels = x.shape[-1] // factor**2
    x = x.reshape(batch, height, width, channels, factor, factor)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * factor, width * factor, channels)


def space_to_depth(x: jax.Array, factor: int) -> jax.Array:
    """Moves `factor × factor` cells into channels: the inverse of `depth_to_space`.

    Args:
      x: Maps, `[B, H, W, C]`.
      factor: Rows and columns of cells that become one; at least 1.

    Returns:
      Maps, `[B, H / factor, W / factor, C * factor²]`, with the channels in the order
      of `depth_to_space`.

    Raises:
      InputError: The factor is below 1.
      ValueError: The height or the width is no multiple of `factor`.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
      >>> space_to_depth(x, 2).tolist()
      [[[[0.0, 1.0, 2.0, 3.0]]]]
    """
    check_size("factor", factor)
    batch, height, width, channels = x.shape
    if height % factor or width % factor:
        raise ValueError(
            f"maps are {height} × {width} cells large; space_to_depth by {factor} "
            f"needs multiples of {factor}"
        )
    shape = (batch, height // factor, factor, width // factor, factor, channels)
    x = x.reshape(shape).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(*x.shape[:3], channels * factor**2)


def _copy_along_axis(x: jax.Array, axis: int, length: int) -> jax.Array:
    positions = np.arange(length)
    sources = positions * x.shape[axis] // length
    repeats = -(-length // x.shape[axis])
    if (sources == positions // repeats).all():
        # The gradient of `repeat` is a sum. The gradient of `take` is a scatter, which
        # is several times slower.
        x = jnp.repeat(x, repeats, axis)
        return jax.lax.slice_in_dim(x, 0, length, axis=axis)
    return jnp.take(x, sources, axis)


def _resize(
    x: jax.Array,
    size: tuple[int, int],
    kernel: Kernel,
    support: int,
    antialias: bool,
    align_corners: bool,
) -> jax.Array:
    check_options(antialias, align_corners)
    dtype, floating = x.dtype, jnp.issubdtype(x.dtype, jnp.floating)
    if not floating and dtype not in _SMALL_INTEGERS:
        raise ValueError(
            f"maps are {dtype}; resizing by weights needs floats, or integers of 8 or "
            "16 bits"
        )
    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    for axis, length in zip((1, 2), check_size("size", size), strict=True):
        x = resample(
            x,
            axis,
            length,
            kernel,
            support,
            antialias=antialias,
            align_corners=align_corners,
        )
    if not floating:
        limits = jnp.iinfo(dtype)
        x = jnp.clip(jnp.round(x), limits.min, limits.max)
    return x.astype(dtype)
