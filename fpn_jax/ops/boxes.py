"""Boxes as `(x0, y0, x1, y1)` in continuous coordinates: area, overlap, conversions.

x points right and y down. A box of an image of width `W` lies in `[0, W]`; pixel `i`
covers `[i, i + 1)`. All functions take any leading dimensions, compute in float32, and
have finite gradients at equal, empty and touching boxes.
"""

import jax
import jax.numpy as jnp


def area(boxes: jax.Array) -> jax.Array:
    """Returns the area of boxes; 0 where a box is empty or reversed.

    Args:
      boxes: `[…, 4]`.

    Returns:
      float32 `[…]`.
    """
    boxes = boxes.astype(jnp.float32)
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the intersection over union of boxes; 0 where the union is empty.

    Args:
      a: `[…, 4]`.
      b: `[…, 4]`; both are broadcast.

    Returns:
      float32 `[…]`, 0 to 1.

    Example:
      >>> a, b = jnp.array([0.0, 0, 2, 2]), jnp.array([1.0, 0, 3, 2])
      >>> round(float(iou(a, b)), 4)
      0.3333
    """
    return _overlap(a, b)[0]


def giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the generalized IoU, `IoU − (C − U) / C`, arXiv 1902.09630.

    `U` is the area of the union and `C` that of the smallest box around both. Where `C`
    is empty, the result is the IoU.

    Args:
      a: `[…, 4]`.
      b: `[…, 4]`; both are broadcast.

    Returns:
      float32 `[…]`, -1 to 1.
    """
    value, union = _overlap(a, b)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    around = area(jnp.concatenate([low, high], axis=-1))
    return value - _ratio(around - union, around)


def vote(values: jax.Array, scores: jax.Array) -> jax.Array:
    """Returns the mean of values, weighted by the softmax of scores.

    Args:
      values: `[B, N, C]`, such as a box for every cell.
      scores: `[B, N, 1]`.

    Returns:
      float32 `[B, C]`.
    """
    weight = jax.nn.softmax(scores.astype(jnp.float32), axis=1)
    return jnp.sum(weight * values.astype(jnp.float32), axis=1)


def to_center_size(boxes: jax.Array) -> jax.Array:
    """Returns `(x, y, height, width)` of boxes: the centre and the size.

    Args:
      boxes: `[…, 4]` as `(x0, y0, x1, y1)`.

    Example:
      >>> to_center_size(jnp.array([1.0, 2, 5, 4])).tolist()
      [3.0, 3.0, 2.0, 4.0]
    """
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)
    return jnp.stack([(x0 + x1) / 2, (y0 + y1) / 2, y1 - y0, x1 - x0], axis=-1)


def from_center_size(boxes: jax.Array) -> jax.Array:
    """Returns `(x0, y0, x1, y1)` of boxes; the inverse of `to_center_size`.

    Args:
      boxes: `[…, 4]` as `(x, y, height, width)`.
    """
    x, y, height, width = jnp.moveaxis(boxes, -1, 0)
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return jnp.stack(corners, axis=-1)


def scale(boxes: jax.Array, size: tuple[float, float]) -> jax.Array:
    """Returns boxes with x times the width and y times the height.

    Args:
      boxes: `[…, 4]` as `(x0, y0, x1, y1)`.
      size: Height and width.
    """
    height, width = size
    return boxes * jnp.array([width, height, width, height], boxes.dtype)


def _overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns IoU and area of the union."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    both = area(jnp.concatenate([low, high], axis=-1))
    union = area(a) + area(b) - both
    return _ratio(both, union), union


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    # The denominator is replaced before the division, so the gradient stays finite.
    safe = jnp.where(denominator > 0, denominator, 1)
    return jnp.where(denominator > 0, numerator / safe, 0)
