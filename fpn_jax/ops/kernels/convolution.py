"""Convolution, computed on a CPU by the method that is fast for its shape."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpn_jax.ops.kernels.padding import Padding, resolve

# Limits measured on an AMD EPYC: within them, batches of small maps are faster as
# matrix products.
_INSIDE = 0.76
_ROWS = range(192, 4097)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sequence[int] = (1, 1),
    padding: Padding = "same",
    dilation: Sequence[int] = (1, 1),
) -> jax.Array:
    """Returns `y[b, i, j] = Σ_uv x[b, s·i + d·u, s·j + d·v] · kernel[u, v]`.

    `x` is padded first. On a CPU, four kinds of convolution are computed as a sum of
    one matrix product per tap: kernels of one cell; maps with fewer cells than the
    kernel; kernels with taps that never overlap the map, as with wide dilations; and
    batches of maps so small that a quarter of the cells under the taps is padding. For
    these, XLA's convolution is up to 75 times slower. All others, and every
    convolution on another device, are XLA's.

    Args:
      x: Maps, `[B, H, W, C]`.
      kernel: `[k, k', C, F]`, of the maps' type.
      stride: Step `s` from one window to the next, in cells, for height and width.
      padding: See `Padding`; padded cells are 0.
      dilation: Distance `d` of neighbouring taps, in cells, for height and width.

    Returns:
      Maps, `[B, H', W', F]`, of the input's type.

    Raises:
      InputError: The padding is unknown, or symmetric around an even kernel.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 1, 4, 1)
      >>> convolve(x, jnp.ones((1, 3, 1, 1)))[0, 0, :, 0].tolist()
      [1.0, 3.0, 6.0, 5.0]
    """
    pads = resolve(padding, x.shape[1:3], kernel.shape[:2], stride, dilation)
    return _convolve(x, kernel, tuple(stride), pads, tuple(dilation))


# Jitted, so that a shape that a network repeats is traced once, not once a layer.
@partial(jax.jit, static_argnums=(2, 3, 4))
def _convolve(x, kernel, stride, padding, dilation):
    window, cells = kernel.shape[:2], x.shape[1:3]
    native = partial(
        jax.lax.conv_general_dilated,
        window_strides=stride,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    images, *windows = jax.eval_shape(native, x, kernel).shape[:3]
    rows, columns = (
        _taps(cells[i], windows[i], window[i], stride[i], padding[i][0], dilation[i])
        for i in range(2)
    )
    taps, used = math.prod(window), len(rows) * len(columns)
    small = min(math.prod(cells), math.prod(windows)) < taps
    # Products skip padding, which pays only for a middle range of rows.
    inside = math.prod(sum(tap.count for tap in axis) for axis in (rows, columns))
    much_padding = inside <= _INSIDE * taps * math.prod(windows)
    padded = much_padding and images * math.prod(windows) in _ROWS
    if not used or not (taps == 1 or small or used < taps or padded):
        return native(x, kernel)
    products = partial(_products, rows=rows, columns=columns)
    return jax.lax.platform_dependent(x, kernel, cpu=products, default=native)


class _Tap(NamedTuple):
    """A tap of a kernel along one axis, and the cells of the map under it.

    Attributes:
      index: Position of the tap in the kernel.
      cells: Cells of the map under the tap, one a window.
      count: Number of these cells.
      blank: Windows before and after, in which the tap is over padding.
    """

    index: int
    cells: slice
    count: int
    blank: tuple[int, int]


def _taps(
    cells: int, windows: int, taps: int, stride: int, before: int, dilation: int
) -> list[_Tap]:
    """Returns the taps that overlap the map in any window, along one axis."""
    found = []
    for index in range(taps):
        offset = dilation * index - before
        first = max(0, -(offset // stride))
        last = min(windows - 1, (cells - 1 - offset) // stride)
        if first <= last:
            ends = (stride * first + offset, stride * last + offset + 1)
            blank = (first, windows - 1 - last)
            found.append(_Tap(index, slice(*ends, stride), last - first + 1, blank))
    return found


def _products(x, kernel, rows, columns):
    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = 0
    for row, column in itertools.product(rows, columns):
        cells = x[:, row.cells, column.cells]
        # Flattened, or XLA copies a transposed map for the gradient of the kernel.
        product = jnp.matmul(
            jax.lax.collapse(cells, 0, -1),
            kernel[row.index, column.index],
            preferred_element_type=wide,
        )
        product = product.reshape(*cells.shape[:-1], product.shape[-1])
        total += jnp.pad(product, ((0, 0), row.blank, column.blank, (0, 0)))
    return total.astype(x.dtype)
