"""Boxes as `(x0, y0, x1, y1)` in continuous coordinates: area, overlap, conversions.

x points right and y down. A box of an image of width `W` lies in `[0, W]`; pixel `i`
covers `[i, i + 1)`. All functions take any leading dimensions, compute in float32, and
have finite gradients at equal, empty and touching boxes.
"""

import math

import jax
import jax.numpy as jnp

GREATEST_GROWTH = math.log(1000 / 16)
"""Greatest logarithm of the sides of a decoded box over those of its anchor."""


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
    around = area(_around(a, b))
    return value - _ratio(around - union, around)


def diou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the distance IoU, `IoU − ρ² / c²`, arXiv 1911.08287.

    `ρ` is the distance of the centres and `c` the diagonal of the smallest box around
    both. Where `c` is 0, the result is the IoU.

    Args:
      a: `[…, 4]`.
      b: `[…, 4]`; both are broadcast.

    Returns:
      float32 `[…]`, -1 to 1.
    """
    around = _around(a, b)
    diagonal = jnp.square(around[..., 2:] - around[..., :2]).sum(-1)
    apart = jnp.square(_centres(a) - _centres(b)).sum(-1)
    return _overlap(a, b)[0] - _ratio(apart, diagonal)


def ciou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the complete IoU, `DIoU − α v`, arXiv 1911.08287.

    `v = 4 / π² (atan(w / h) − atan(w' / h'))²` and `α = v / (1 − IoU + v)`, through
    which no gradient flows. A box without an area has the angle 0.

    Args:
      a: `[…, 4]`.
      b: `[…, 4]`; both are broadcast.

    Returns:
      float32 `[…]`, -2 to 1.
    """
    v = 4 / math.pi**2 * jnp.square(_angle(a) - _angle(b))
    alpha = jax.lax.stop_gradient(_ratio(v, 1 - _overlap(a, b)[0] + v))
    return diou(a, b) - alpha * v


def clip(boxes: jax.Array, size: tuple[float, float]) -> jax.Array:
    """Returns the parts of boxes that lie in an image.

    Args:
      boxes: `[…, 4]`.
      size: Height and width of the image.
    """
    height, width = size
    return jnp.clip(boxes, 0, jnp.array([width, height] * 2, boxes.dtype))


def encode(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns boxes relative to anchors, as R-CNN does (arXiv 1311.2524, appendix C).

    `((x − x_a) / w_a, (y − y_a) / h_a, log(w / w_a), log(h / h_a))` for centres and
    sides. Anchors must have an area; an empty box gives finite numbers without meaning.

    Args:
      boxes: `[…, 4]` as `(x0, y0, x1, y1)`.
      anchors: `[…, 4]`; both are broadcast.

    Returns:
      float32 `[…, 4]`.
    """
    sides = _sides(anchors)
    grown = _sides(boxes) / sides
    grown = jnp.log(jnp.where(grown > 0, grown, 1))
    moved = (_centres(boxes) - _centres(anchors)) / sides
    return jnp.concatenate(jnp.broadcast_arrays(moved, grown), axis=-1)


def decode(deltas: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns the boxes of relative coordinates; the inverse of `encode`.

    Args:
      deltas: `[…, 4]`; logarithms of sides are limited to `GREATEST_GROWTH`.
      anchors: `[…, 4]`; both are broadcast.

    Returns:
      float32 `[…, 4]` as `(x0, y0, x1, y1)`.
    """
    deltas, sides = deltas.astype(jnp.float32), _sides(anchors)
    centres = _centres(anchors) + deltas[..., :2] * sides
    half = sides * jnp.exp(jnp.minimum(deltas[..., 2:], GREATEST_GROWTH)) / 2
    return jnp.concatenate([centres - half, centres + half], axis=-1)


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


def _around(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the smallest box around two boxes, float32."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    return jnp.concatenate([low, high], axis=-1)


def _centres(boxes: jax.Array) -> jax.Array:
    """Returns `(x, y)`, float32."""
    boxes = boxes.astype(jnp.float32)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _sides(boxes: jax.Array) -> jax.Array:
    """Returns `(width, height)`, float32."""
    boxes = boxes.astype(jnp.float32)
    return boxes[..., 2:] - boxes[..., :2]


def _angle(boxes: jax.Array) -> jax.Array:
    """Returns the angle of the diagonal, from the upright, in radians."""
    width, height = jnp.moveaxis(_sides(boxes), -1, 0)
    # The gradient of arctan2 at (0, 0) is NaN.
    solid = (width > 0) & (height > 0)
    return jnp.arctan2(jnp.where(solid, width, 0), jnp.where(solid, height, 1))


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
