"""Taps of windows that slide over a map: the cells under each tap, and the transpose.

XLA's own operations are slow on a CPU for windows that reduce without mixing channels.
Slices of the map, one a tap, are fast.
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
    """Returns for every tap of a window, row by row, the cells under it.

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
    """Returns a map to which every window has added a value at each of its taps.

    The transpose of `shifted`. Padded cell `s·n + r` is under the taps whose offset `t`
    is `r` modulo `s`, in window `n − t // s`. The map is therefore put together from
    one dense map for each `r`, without a scatter.

    Args:
      value: Function of `(tap, *sources)` to the values that the windows add at that
        tap, `[B, h, w, C]`; the sources are cut to these windows. Zeros must give zero.
      sources: `[B, H', W', C]`, one cell a window.
      size: Height and width of the map.
      window: Taps, as in `shifted`.
      stride: Step from one window to the next.
      padding: Cells `(before, after)` for height and width.
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
        cut = (
            source[:, top : top + cells[0], start : start + cells[1]]
            for source in sources
        )
        phases[above][left] += value(tap, *cut)
    padded = jnp.stack([jnp.stack(columns, axis=3) for columns in phases], axis=2)
    padded = padded.reshape(batch, *np.multiply(stride, cells), channels)
    (top, _), (left, _) = padding
    return padded[:, top : top + size[0], left : left + size[1]]
