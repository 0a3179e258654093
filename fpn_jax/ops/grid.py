"""The grid of YOLO: which predictor is responsible for a box, and its coordinates.

"YOLO9000: Better, Faster, Stronger" (arXiv 1612.08242). A map has cells of equal size,
and every cell has a predictor for each anchor, a width and a height. Boxes and anchors
are in pixels of the network's input.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

GREATEST_GROWTH = 8.0
"""Greatest logarithm of the sides of a decoded box over those of its anchor."""


class Responsible(NamedTuple):
    """The predictors that boxes are assigned to.

    Attributes:
      predictor: int32 `[…, M]`, number of the predictor: by rows, then columns, then
        anchors.
      wins: bool `[…, M]`, whether the box is the predictor's. Of several boxes in one
        predictor the largest wins, and of equal ones the first; padding never does.
    """

    predictor: jax.Array
    wins: jax.Array


def shape_iou(sizes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns the IoU of boxes and anchors that have one centre, float32 `[…, A]`.

    Args:
      sizes: Width and height, `[…, 2]`.
      anchors: Width and height, `[A, 2]`.
    """
    sizes = sizes.astype(jnp.float32)[..., None, :]
    both = jnp.minimum(sizes, anchors).prod(-1)
    union = sizes.prod(-1) + jnp.asarray(anchors, jnp.float32).prod(-1) - both
    safe = jnp.where(union > 0, union, 1)
    return jnp.where(union > 0, both / safe, 0)


def assign(
    boxes: jax.Array,
    valid: jax.Array,
    anchors: jax.Array,
    size: tuple[int, int],
    stride: float,
) -> Responsible:
    """Returns the predictor of every box: the cell of its middle, the nearest shape.

    Args:
      boxes: `[…, M, 4]` as `(x0, y0, x1, y1)`.
      valid: bool `[…, M]`.
      anchors: Width and height, `[A, 2]`.
      size: Height and width of the map, in cells.
      stride: Side of a cell, in pixels.
    """
    boxes = boxes.astype(jnp.float32)
    height, width = size
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2 / stride
    # A middle on the far border belongs to the last cell; NaN of padding to the first.
    cell = jnp.nan_to_num(jnp.floor(middle)).astype(jnp.int32)
    column = jnp.clip(cell[..., 0], 0, width - 1)
    row = jnp.clip(cell[..., 1], 0, height - 1)
    sides = boxes[..., 2:] - boxes[..., :2]
    kind = jnp.argmax(shape_iou(sides, anchors), axis=-1).astype(jnp.int32)
    predictor = (row * width + column) * len(anchors) + kind
    area = jnp.where(valid, sides.prod(-1), -1)
    same = predictor[..., :, None] == predictor[..., None, :]
    number = jnp.arange(boxes.shape[-2])
    larger = area[..., None, :] > area[..., :, None]
    earlier = (area[..., None, :] == area[..., :, None]) & (
        number[None, :] < number[:, None]
    )
    beaten = (same & valid[..., None, :] & (larger | earlier)).any(-1)
    return Responsible(predictor, valid & ~beaten)


def cells(size: tuple[int, int], count: int) -> jax.Array:
    """Returns column and row of the cell of every predictor, float32 `[h · w · A, 2]`.

    Args:
      size: Height and width of the map, in cells.
      count: Number of anchors.
    """
    height, width = size
    column, row = jnp.meshgrid(jnp.arange(width), jnp.arange(height))
    both = jnp.stack([column, row], axis=-1).reshape(-1, 2)
    return jnp.repeat(both, count, axis=0).astype(jnp.float32)


def decode(
    numbers: jax.Array, size: tuple[int, int], anchors: jax.Array, stride: float
) -> jax.Array:
    """Returns the boxes of all predictors.

    `x = (σ(t_x) + c_x) s`, `y = (σ(t_y) + c_y) s`, `w = p_w e^{t_w}`, `h = p_h e^{t_h}`
    for the cell `c`, the stride `s` and the anchor `p`.

    Args:
      numbers: `[…, h · w · A, 4]`; the logarithms are limited to `GREATEST_GROWTH`.
      size: Height and width of the map, in cells.
      anchors: Width and height, `[A, 2]`.
      stride: Side of a cell, in pixels.

    Returns:
      float32 `[…, h · w · A, 4]` as `(x0, y0, x1, y1)`.
    """
    numbers, count = numbers.astype(jnp.float32), len(anchors)
    middle = (jax.nn.sigmoid(numbers[..., :2]) + cells(size, count)) * stride
    prior = jnp.tile(jnp.asarray(anchors, jnp.float32), (size[0] * size[1], 1))
    half = prior * jnp.exp(jnp.minimum(numbers[..., 2:], GREATEST_GROWTH)) / 2
    return jnp.concatenate([middle - half, middle + half], axis=-1)


def encode(
    boxes: jax.Array,
    predictor: jax.Array,
    size: tuple[int, int],
    anchors: jax.Array,
    stride: float,
) -> jax.Array:
    """Returns `(σ(t_x), σ(t_y), t_w, t_h)` of boxes for their predictors.

    Args:
      boxes: `[…, M, 4]`; a box without an area gives finite numbers without meaning.
      predictor: int `[…, M]`, from `assign`.
      size: Height and width of the map, in cells.
      anchors: Width and height, `[A, 2]`.
      stride: Side of a cell, in pixels.

    Returns:
      float32 `[…, M, 4]`.
    """
    boxes = boxes.astype(jnp.float32)
    place = cells(size, len(anchors))[predictor]
    prior = jnp.asarray(anchors, jnp.float32)[predictor % len(anchors)]
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2 / stride - place
    grown = (boxes[..., 2:] - boxes[..., :2]) / prior
    return jnp.concatenate([middle, jnp.log(jnp.where(grown > 0, grown, 1))], axis=-1)
