"""Anchors on the cells of a pyramid, and the true boxes that they are responsible for.

An anchor is a box `(x0, y0, x1, y1)` in pixels of the network's input, in continuous
coordinates.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors

NEGATIVE, BETWEEN = -1, -2
"""Matches of an anchor without a box: background, and one that counts in no loss."""


def shapes(
    sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool = False
) -> np.ndarray:
    """Returns anchors of several sizes and aspect ratios, centred at the origin.

    An anchor of size `s` and ratio `r` has the height `s √r` and the width `s / √r`.

    Args:
      sizes: Square roots of the areas, in pixels, above 0.
      ratios: Height / width, above 0.
      rounded: Whether coordinates are rounded to whole pixels, as torchvision does;
        detectron2 does not.

    Returns:
      float32 `[A, 4]`; the sizes of the first ratio come first.

    Raises:
      InputError: A number is out of range.
    """
    for name, values in (("sizes", sizes), ("ratios", ratios)):
        for value in values:
            errors.within(name, value, 0, math.inf, open_low=True, open_high=True)
    # torchvision computes in float32, which decides what is rounded up.
    root = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    size = np.asarray(sizes, np.float32)
    half = np.stack([size * (1 / root), size * root], axis=-1).reshape(-1, 2) / 2
    corners = np.concatenate([-half, half], axis=1)
    return np.rint(corners) if rounded else corners


def on_grid(
    shapes: np.ndarray,
    size: tuple[int, int],
    stride: tuple[float, float],
    offset: tuple[float, float],
) -> np.ndarray:
    """Returns anchors of every shape at every cell of a map.

    Args:
      shapes: `[A, 4]`, centred at the origin.
      size: Height and width of the map, in cells.
      stride: Pixels from a cell to the next one, down and across.
      offset: y and x of the point of the first cell, in pixels: half a stride for the
        middle of a cell; 0 in torchvision.

    Returns:
      float32 `[h · w · A, 4]`, by rows, then columns, then shapes.
    """
    y, x = (
        start + step * np.arange(length, dtype=np.float32)
        for length, step, start in zip(size, stride, offset, strict=True)
    )
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
    return (np.tile(points, 2) + shapes).reshape(-1, 4).astype(np.float32)


def match(
    iou: jax.Array,
    valid: jax.Array,
    *,
    high: float = 0.5,
    low: float = 0.4,
    keep_best: bool = True,
) -> jax.Array:
    """Returns the number of the true box that every anchor is matched with.

    An anchor is matched with the box of the highest IoU if that is at least `high`. It
    is negative below `low`, and counts in no loss in between. With `keep_best`, the
    anchors of the highest IoU of each box, all of them if several are equal, are
    matched as well, each with its own best box, as in "Faster R-CNN" (arXiv 1506.01497,
    section 3.1.2). Differs from torchvision, which marks all anchors where a box
    overlaps none: an IoU of 0 is no match. Of equal boxes, the first one wins.

    Args:
      iou: `[…, M, N]`, of M boxes and N anchors.
      valid: bool `[…, M]`; a box that is padding is never matched.
      high: IoU from which an anchor is matched, in [0, 1].
      low: IoU below which an anchor is negative, in [0, `high`].
      keep_best: Whether boxes without an anchor at `high` keep their best ones.

    Returns:
      int32 `[…, N]`: the box, `NEGATIVE` or `BETWEEN`.

    Raises:
      InputError: A number is out of range.
    """
    errors.within("high", high, 0, 1)
    errors.within("low", low, 0, high)
    if not iou.size:
        return jnp.full((*iou.shape[:-2], iou.shape[-1]), NEGATIVE, jnp.int32)
    iou = jnp.where(valid[..., None], iou.astype(jnp.float32), -1)
    best = jnp.argmax(iou, axis=-2).astype(jnp.int32)
    value = jnp.max(iou, axis=-2)
    unmatched = jnp.where(value < low, NEGATIVE, BETWEEN)
    matched = value >= high
    if keep_best:
        highest = jnp.max(iou, axis=-1, keepdims=True)
        matched |= jnp.any((iou == highest) & (highest > 0), axis=-2)
    # The value is -1 where all boxes are padding.
    return jnp.where(matched & (value >= 0), best, unmatched)
