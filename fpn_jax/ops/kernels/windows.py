"""Windows over maps: the mechanism of every pooling operation.

A pooling operation reduces each window to one value a channel. Windows have a size and
a stride, or are one window over the whole map, or are bins, which divide a map into a
given number of parts. Cells of padding are never counted.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors
from fpn_jax.ops.kernels import taps
from fpn_jax.ops.kernels.extremes import extreme_cells, farthest, sliding_extremes
from fpn_jax.ops.kernels.padding import Padding, resolve

Size = int | tuple[int, int]
"""Height and width, in cells; one number for both."""


@dataclasses.dataclass(frozen=True)
class Bins:
    """A map divided into `height × width` windows, whatever its size.

    With `m` bins over `n` cells, bin `i` covers the cells from `floor(i * n / m)` to
    `ceil((i + 1) * n / m)`, excluded. The bins cover the map, neighbours share a cell
    where `m` does not divide `n`, and every bin contains at least one cell, even where
    there are more bins than cells.

    Attributes:
      height: Bins from top to bottom, 1 or more.
      width: Bins from left to right, 1 or more.
    """

    height: int
    width: int

    def __post_init__(self):
        check_size("bins", (self.height, self.width))


Window = Size | Bins | None
"""Height and width of a window in cells, bins, or None: one window, the whole map."""


class Windows(NamedTuple):
    """The cells of windows, and which of them lie inside the map.

    Attributes:
      values: `[B, H', W', n, C]`; the `n` cells of a window row by row, zero where a
        cell is outside the map or fills a bin up to the size of the largest bin.
      inside: `[H', W', n]` booleans, false at these zeros; a NumPy array, because it
        depends on shapes alone.
    """

    values: jax.Array
    inside: np.ndarray


def check_size(name: str, size: Size) -> tuple[int, int]:
    """Returns height and width of a `Size`.

    Args:
      name: What has the size, for the error message.
      size: See `Size`.

    Raises:
      InputError: The size is neither a whole number of at least 1 nor two of them.
    """
    pair = (size, size) if isinstance(size, int | np.integer) else size
    if not (
        isinstance(pair, Sequence)
        and len(pair) == 2
        and all(isinstance(n, int | np.integer) and n >= 1 for n in pair)
    ):
        raise errors.InputError(
            f"{name} is {size}; it must be a whole number of at least 1, or two of "
            "them, (height, width)"
        )
    return tuple(pair)


def check_window(
    window: Window, stride: Size | None = None, padding: Padding = "valid"
) -> None:
    """Refuses windows that cannot fit any map.

    Args:
      window: See `Window`.
      stride: Step from one window to the next, in cells; None is the window's size.
      padding: See `Padding`.

    Raises:
      InputError: A size is below 1, the padding is unknown or not smaller than the
        window, or a stride or padding is given with bins or the whole map, which have
        none.
    """
    if window is None or isinstance(window, Bins):
        kind = "the whole map" if window is None else "bins"
        for name, value, absent in (
            ("stride", stride, None),
            ("padding", padding, "valid"),
        ):
            if value != absent:
                raise errors.InputError(
                    f"{name} is {value!r}, but the window is {kind}, which has no "
                    f"{name}; leave it at {absent!r} or give a window"
                )
        return
    pair = check_size("window", window)
    check_size("stride", pair if stride is None else stride)
    # A named padding fits a map of any size, so the size given here does not matter.
    pads = resolve(padding, pair, pair, (1, 1))
    for sides, length in zip(pads, pair, strict=True):
        if max(sides) >= length:
            raise errors.InputError(
                f"padding is {padding} and the window {window}; every side takes "
                "fewer cells than the window has"
            )


def windows(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> Windows:
    """Returns the cells of every window.

    A window of `F × F` cells is unrolled into `F²` slices of the map: tracing and
    compilation slow down where a local window has thousands of cells.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`.
      stride: Step from one window to the next, in cells; None is the window's size.
      padding: See `Padding`.

    Returns:
      `H' × W'` windows; `1 × 1` for the whole map.

    Raises:
      InputError: See `check_window`, or the window is larger than the padded map.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> values, inside = windows(x, window=2, padding="same")
      >>> values[0, 0, 1, :, 0].tolist(), inside[0, 1].tolist()
      ([2.0, 0.0, 5.0, 0.0], [True, False, True, False])
    """
    check_window(window, stride, padding)
    _check_cells(x)
    batch, height, width, channels = x.shape
    if window is None:
        values = x.reshape(batch, 1, 1, height * width, channels)
        return Windows(values, np.ones((1, 1, height * width), bool))
    rows, columns = _spans((height, width), window, stride, padding)
    if isinstance(window, Bins):
        values = jnp.moveaxis(columns.slices(rows.slices(x, 1), 3), 2, 3)
    else:
        # One strided slice for every cell of a window. The gradient of slices is a sum
        # of padded maps; that of a gather is a scatter, whose order is not fixed.
        fitted = _fit((height, width), window, stride, padding)
        values = jnp.stack(taps.shifted(x, *fitted), axis=3)
    inside = rows.inside[:, None, :, None] & columns.inside[None, :, None, :]
    rows_out, columns_out, *window_size = inside.shape
    shape = (rows_out, columns_out, math.prod(window_size))
    return Windows(values.reshape(batch, *shape, channels), inside.reshape(shape))


def window_counts(
    size: tuple[int, int],
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> np.ndarray:
    """Returns the number of cells of the map in every window, `[H', W', 1]` float32.

    Args:
      size: Height and width of the map, in cells.
      window: See `Window`.
      stride: Step from one window to the next, in cells; None is the window's size.
      padding: See `Padding`.

    Raises:
      InputError: See `windows`.

    Example:
      >>> window_counts((3, 3), window=2, padding="same")[:, :, 0].tolist()
      [[4.0, 2.0], [2.0, 1.0]]
    """
    check_window(window, stride, padding)
    if window is None:
        return np.full((1, 1, 1), size[0] * size[1], np.float32)
    rows, columns = _spans(size, window, stride, padding)
    count = np.outer(rows.inside.sum(-1), columns.inside.sum(-1))
    return count[:, :, None].astype(np.float32)


def window_means(
    x: jax.Array,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns the mean of every window's cells, without making the windows.

    Bins are averaged along one axis, then along the other.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: See `Window`.
      stride: Step from one window to the next, in cells; None is the window's size.
      padding: See `Padding`.

    Returns:
      `[B, H', W', C]` float32, float64 of float64.

    Raises:
      InputError: See `windows`.
    """
    check_window(window, stride, padding)
    _check_cells(x)
    x = wide(x)
    if window is None:
        return x.mean(axis=(1, 2), keepdims=True)
    if isinstance(window, Bins):
        rows, columns = _spans(x.shape[1:3], window, stride, padding)
        return columns.means(rows.means(x, 1), 2)
    pair, strides, pads = _fit(x.shape[1:3], window, stride, padding)
    total = jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, *pair, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )
    return total / window_counts(x.shape[1:3], window, stride, padding)


def window_extremes(
    x: jax.Array,
    larger: bool,
    window: Window = None,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns the largest or the smallest of every window's cells.

    Args:
      x: Maps, `[B, H, W, C]`, of any type but complex.
      larger: Whether the largest is returned, rather than the smallest.
      window: See `Window`.
      stride: Step from one window to the next, in cells; None is the window's size.
      padding: See `Padding`.

    Returns:
      `[B, H', W', C]`, of the input's type.

    Raises:
      InputError: See `windows`.
    """
    check_window(window, stride, padding)
    _check_cells(x)
    if window is None or isinstance(window, Bins):
        values, inside = windows(x, window)
        values = jnp.where(inside[..., None], values, farthest(x.dtype, larger))
        return extreme_cells(values, larger, axis=3)
    fitted = _fit(x.shape[1:3], window, stride, padding)
    return sliding_extremes(x, larger, *fitted)


def wide(x: jax.Array) -> jax.Array:
    """Returns maps in the type of sums: float64 of float64, otherwise float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_cells(x: jax.Array) -> None:
    height, width = x.shape[1:3]
    if height < 1 or width < 1:
        raise errors.InputError(
            f"maps have {height} × {width} cells; pooling needs at least one"
        )


class _Spans(NamedTuple):
    """The cells of every window along one axis, `[m, longest]`, before clipping."""

    cells: np.ndarray
    inside: np.ndarray

    def slices(self, x: jax.Array, axis: int) -> jax.Array:
        """Returns the axis split in two: bins, and cells padded to the longest bin."""
        bins = []
        for piece in self._pieces(x, axis):
            widths = [(0, 0)] * x.ndim
            widths[axis] = (0, self.cells.shape[1] - piece.shape[axis])
            bins.append(jnp.pad(piece, widths))
        return jnp.stack(bins, axis)

    def means(self, x: jax.Array, axis: int) -> jax.Array:
        """Returns the axis as the means of the bins."""
        return jnp.stack([piece.mean(axis) for piece in self._pieces(x, axis)], axis)

    def _pieces(self, x: jax.Array, axis: int) -> list[jax.Array]:
        counts = self.inside.sum(-1)
        return [
            jax.lax.slice_in_dim(x, start, start + count, axis=axis)
            for start, count in zip(self.cells[:, 0], counts, strict=True)
        ]


def _spans(
    size: Sequence[int], window: Window, stride: Size | None, padding: Padding
) -> list[_Spans]:
    if isinstance(window, Bins):
        edges = [
            [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
            for n, m in zip(size, (window.height, window.width), strict=True)
        ]
    else:
        edges = [
            [(start, start + w) for start in range(-before, n + after - w + 1, s)]
            for n, w, s, (before, after) in zip(
                size, *_fit(size, window, stride, padding), strict=True
            )
        ]
    spans = []
    for n, starts_and_stops in zip(size, edges, strict=True):
        starts, stops = np.array(starts_and_stops).T[..., None]
        cells = starts + np.arange((stops - starts).max())
        spans.append(_Spans(cells, (cells >= 0) & (cells < np.minimum(stops, n))))
    return spans


def _fit(
    size: Sequence[int], window: Size, stride: Size | None, padding: Padding
) -> tuple[tuple[int, int], tuple[int, int], Sequence[tuple[int, int]]]:
    pair = check_size("window", window)
    strides = check_size("stride", window if stride is None else stride)
    pads = resolve(padding, size, pair, strides)
    for n, w, (before, after) in zip(size, pair, pads, strict=True):
        if n + before + after < w:
            raise errors.InputError(
                f"window is {window}, but the map is only {size[0]} × {size[1]} cells "
                f"large with padding {padding!r}; give a smaller window, or 'same'"
            )
    return pair, strides, pads
