"""Padding: the number of cells added around a map, for every kind of window."""

from collections.abc import Sequence
from numbers import Integral

import jax

from fpn_jax import errors

Padding = str | int | Sequence[tuple[int, int]]
"""How many cells are added around a map before windows slide over it.

- `"symmetric"`: half a window, `dilation * (window // 2)` cells, on every side at any
  stride, as in PyTorch's networks; windows are odd. The result is
  `ceil(size / stride)` large.
- `"same"`: TensorFlow's and XLA's "SAME". The result is as large, but strided windows
  over even maps pad the lower right side only. Against `"symmetric"` the windows are
  shifted by a cell, so weights need the padding that they were trained with.
- `"valid"`: no cells.
- A number: that many cells on every side.
- `((before, after), (before, after))`: cells for height and for width.
"""

NAMES = ("symmetric", "same", "valid")
"""The paddings that have a name."""


def spans(window: Sequence[int], dilation: Sequence[int] = (1, 1)) -> list[int]:
    """Returns the cells from the first to the last tap of a window, both included.

    Args:
      window: Taps, for height and width.
      dilation: Distance of neighbouring taps, in cells.

    Example:
      >>> spans((3, 1), (2, 2))
      [5, 1]
    """
    return [d * (taps - 1) + 1 for taps, d in zip(window, dilation, strict=True)]


def resolve(
    padding: Padding,
    size: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int] = (1, 1),
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the cells `(before, after)` that are added to height and width.

    Args:
      padding: See `Padding`.
      size: Height and width of the map.
      window: Taps of the window.
      stride: Step from one window to the next.
      dilation: Distance of neighbouring taps.

    Raises:
      InputError: The padding is unknown, or symmetric around an even window.

    Example:
      >>> resolve("symmetric", (8, 8), (3, 3), (2, 2))
      ((1, 1), (1, 1))
      >>> resolve("same", (8, 7), (3, 3), (2, 2))
      ((0, 1), (1, 1))
    """
    if not isinstance(padding, str):
        return _sides(padding)
    errors.one_of("padding", padding, NAMES)
    if padding == "symmetric":
        if any(taps % 2 == 0 for taps in window):
            raise errors.InputError(
                f"padding is 'symmetric', but the window is {tuple(window)}, which "
                "has no middle; take odd windows, or padding 'same'"
            )
        return tuple((span // 2,) * 2 for span in spans(window, dilation))
    extents = spans(window, dilation)
    return tuple(jax.lax.padtype_to_pads(size, extents, stride, padding.upper()))


def _sides(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    pairs = ((padding,) * 2,) * 2 if isinstance(padding, Integral) else padding
    if not (_is_pair(pairs) and all(map(_is_pair_of_cells, pairs))):
        raise errors.InputError(
            f"padding is {padding!r}; it must be one of {', '.join(NAMES)}, a number "
            "of cells, or ((before, after), (before, after)) for height and width, "
            "each at least 0"
        )
    return tuple(tuple(map(int, pair)) for pair in pairs)


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 2


def _is_pair_of_cells(value: object) -> bool:
    return _is_pair(value) and all(
        isinstance(n, Integral) and not isinstance(n, bool) and n >= 0 for n in value
    )
