"""The taps of windows that slide over a map: the cells they meet, and the way back.

XLA's own ways are slow on a CPU for windows that reduce without mixing channels; slices
of the whole map, one for each tap, are not.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.ops.kernels.padding import spans

Pair = Sequence[int]
"""Cells for height and width."""


def shifted(
    x: jax.Array,
    window: Pair,
    stride: Pair,
    padding: Sequence[Pair],
    dilation: Pair = (1, 1),
    fill: float = 0.0,
) -> list[jax.Array]:
    """Returns for every tap of a window, row by row, the cells it meets.

    Args:
      x: Maps, `[B, H, W, C]`.
      window: Taps.
      stride: Step from one window to the next.
      padding: Cells `(before, after)` for height and width.
      dilation: Distance of neighbouring taps.
      fill: Value of the cells of the padding.

    Returns:
      As many maps as taps, `[B, H', W', C]`, one cell a window.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 1, 4, 1)
      >>> taps = shifted(x, (1, 2), (1, 1), ((0, 0), (0, 0)))
      >>> [tap[0, 0, :, 0].tolist() for tap in taps]
      [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
    extents = spans(window, dilation)
    ends = [x.shape[1 + axis] - extents[axis] + 1 for axis in range(2)]
    return [
        x[:, row : row + ends[0] : stride[0], column : column + ends[1] : stride[1]]
        for row in range(0, extents[0], dilation[0])
        for column in range(0, extents[1], dilation[1])
    ]


def spread(
    value: Callable[..., jax.Array],
    sources: Sequence[jax.Array],
    size: Pair,
    window: Pair,
    stride: Pair,
    padding: Sequence[Pair],
    dilation: Pair = (1, 1),
) -> jax.Array:
    """Returns the map in which every window has added a value at each of its taps.

    The transpose of `shifted`. Padded cell `s·n + r` is met by the taps whose offset
    `t` is `r` modulo `s`, in window `n − t // s`; so the map is made of one dense map
    for each `r`, without a scatter.

    Args:
      value: Of `(tap, *sources)`, what the windows add at that tap, `[B, h, w, C]`; the
        sources come cut to the windows it is for. Zeros must give zero.
      sources: `[B, H', W', C]`, one cell a window.
      size: Height and width of the map.
      window: See `shifted`, as all that follow.
      stride: Step from one window to the next.
      padding: Cells before and after.
      dilation: Distance of neighbouring taps.

    Returns:
      `[B, H, W, C]`.

    Example:
      >>> x = jnp.ones((1, 1, 3, 1))
      >>> no = ((0, 0), (0, 0))
      >>> y = spread(lambda tap, x: x, [x], (1, 4), (1, 2), (1, 1), no)
      >>> y[0, 0, :, 0].tolist()
      [1.0, 2.0, 2.0, 1.0]
    """
    cells = [
        -(-(n + sum(pads)) // s)
        for n, pads, s in zip(size, padding, stride, strict=True)
    ]
    reach = [d * (n - 1) // s for n, d, s in zip(window, dilation, stride, strict=True)]
    batch, *windows, channels = sources[0].shape
    widths = [(reach[axis], cells[axis] - windows[axis]) for axis in range(2)]
    sources = [jnp.pad(source, ((0, 0), *widths, (0, 0))) for source in sources]
    blank = jnp.zeros((batch, *cells, channels), sources[-1].dtype)
    phases = [[blank] * stride[1] for _ in range(stride[0])]
    for tap, (row, column) in enumerate(np.ndindex(*window)):
        down, above = divmod(dilation[0] * row, stride[0])
        right, left = divmod(dilation[1] * column, stride[1])
        top, start = reach[0] - down, reach[1] - right
        met = (
            source[:, top : top + cells[0], start : start + cells[1]]
            for source in sources
        )
        phases[above][left] += value(tap, *met)
    whole = jnp.stack([jnp.stack(columns, axis=3) for columns in phases], axis=2)
    whole = whole.reshape(batch, *np.multiply(stride, cells), channels)
    (top, _), (left, _) = padding
    return whole[:, top : top + size[0], left : left + size[1]]
