"""Receptive fields: where the cells of a network's maps are in its image."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fpn_jax.ops.kernels.padding import Padding, resolve, spans


class SlidingWindow(NamedTuple):
    """The window of a convolution or a pooling layer.

    Attributes:
      size: Height and width, in taps.
      stride: Step from one window to the next, in cells.
      padding: See `fpn_jax.ops.kernels.padding.Padding`.
      dilation: Distance of neighbouring taps, in cells.
    """

    size: int
    stride: int = 1
    padding: Padding = "symmetric"
    dilation: int = 1


def cell_offset(
    image_size: tuple[int, int], windows: Mapping[int, Sequence[SlidingWindow]]
) -> dict[int, tuple[float, float]]:
    """Returns the centre of the receptive field of the first cell of every level.

    `1/2 + Σ_i j_i ((e_i - 1) / 2 - p_i)` along each axis, for the windows `i` up to the
    level: `e_i` is the extent of a window, `p_i` the cells padded before the map, both
    in cells of the map that the window slides over, and `j_i` the stride of that map in
    pixels (Araujo et al., "Computing Receptive Fields of Convolutional Neural
    Networks", Distill 2019). Coordinates are continuous: pixel `i` covers `[i, i + 1)`.

    Args:
      image_size: Height and width of the image, in pixels.
      windows: Level → windows between the level before, or the image, and this one, in
        order. Windows of stride 1 that are padded by half of their extent on both sides
        move no centre and may be omitted.

    Returns:
      Level → `(y, x)`, in pixels.

    Example:
      >>> stem, pool = SlidingWindow(7, 2), SlidingWindow(3, 2, "valid")
      >>> cell_offset((32, 32), {1: [stem], 2: [pool]})
      {1: (0.5, 0.5), 2: (2.5, 2.5)}
    """
    size, stride, centre, offsets = tuple(image_size), 1, (0.5, 0.5), {}
    for level in sorted(windows):
        for window in windows[level]:
            taps, step, dilation = (
                (n, n) for n in (window.size, window.stride, window.dilation)
            )
            extents = spans(taps, dilation)
            pads = resolve(window.padding, size, taps, step, dilation)
            centre = tuple(
                position + stride * ((extent - 1) / 2 - before)
                for position, extent, (before, _) in zip(
                    centre, extents, pads, strict=True
                )
            )
            size = tuple(
                (cells + sum(sides) - extent) // window.stride + 1
                for cells, extent, sides in zip(size, extents, pads, strict=True)
            )
            stride *= window.stride
        offsets[level] = centre
    return offsets
