"""FCOS: the box that each location of a pyramid is responsible for, and its distances.

"FCOS: Fully Convolutional One-Stage Object Detection" (arXiv 1904.01355), with the
sampling of centres of its second version (arXiv 2006.09214). Locations, boxes and
strides are in pixels of the network's input, in continuous coordinates.
"""

import jax
import jax.numpy as jnp

NONE = -1
"""Match of a location that is background."""
_LEAST = 1e-12
"""Smallest number whose square root is taken."""


def locations(
    size: tuple[int, int], stride: float, first: tuple[float, float]
) -> jax.Array:
    """Returns x and y of the centre of every cell of a map, by rows, `[h · w, 2]`.

    Args:
      size: Height and width of the map, in cells.
      stride: Pixels from a cell to the next one.
      first: y and x of the centre of the first cell, in pixels.

    Example:
      >>> locations((1, 2), 8, (4.0, 4.0)).tolist()
      [[4.0, 4.0], [12.0, 4.0]]
    """
    y, x = (
        start + stride * jnp.arange(length, dtype=jnp.float32)
        for length, start in zip(size, first, strict=True)
    )
    return jnp.stack(jnp.meshgrid(x, y), axis=-1).reshape(-1, 2)


def assign(
    locations: jax.Array,
    strides: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    *,
    limits: tuple[jax.Array, jax.Array],
    radius: float = 1.5,
) -> jax.Array:
    """Returns the number of the true box that each location is responsible for.

    A location takes a box if it lies inside of it, less than `radius` strides from its
    centre along both axes, and if its greatest distance to a side is within the limits
    of the location's level. Of several boxes, it takes the one with the smallest area,
    and of equal ones the first.

    Args:
      locations: `[N, 2]`, x and y.
      strides: `[N]`, stride of the level of each location.
      boxes: `[…, M, 4]`.
      valid: bool `[…, M]`; a box that is padding is never taken.
      limits: Least and greatest distance, exclusive, `[N]` both.
      radius: In strides; infinity takes the whole box.

    Returns:
      int32 `[…, N]`: the box, or `NONE`.
    """
    boxes = boxes.astype(jnp.float32)
    if not boxes.size:
        return jnp.full((*boxes.shape[:-2], len(locations)), NONE, jnp.int32)
    # Padding may be NaN, which no comparison finds inside.
    sides = distances(locations, boxes[..., None, :])
    inside = sides.min(-1) > 0
    centres = (boxes[..., None, :2] + boxes[..., None, 2:]) / 2
    near = jnp.abs(locations - centres).max(-1) < radius * strides
    greatest = sides.max(-1)
    in_level = (greatest > limits[0]) & (greatest < limits[1])
    taken = inside & near & in_level & valid[..., None]
    size = boxes[..., 2:] - boxes[..., :2]
    area = jnp.where(taken, (size[..., 0] * size[..., 1])[..., None], jnp.inf)
    best = jnp.argmin(area, axis=-2).astype(jnp.int32)
    return jnp.where(taken.any(-2), best, NONE)


def distances(locations: jax.Array, boxes: jax.Array) -> jax.Array:
    """Returns the distances from locations to the left, top, right and bottom side.

    Args:
      locations: `[…, 2]`, x and y.
      boxes: `[…, 4]`; both are broadcast.

    Returns:
      float32 `[…, 4]`; negative where the location is outside of that side.

    Example:
      >>> distances(jnp.array([2.0, 3]), jnp.array([0.0, 0, 10, 5])).tolist()
      [2.0, 3.0, 8.0, 2.0]
    """
    locations, boxes = locations.astype(jnp.float32), boxes.astype(jnp.float32)
    low, high = locations - boxes[..., :2], boxes[..., 2:] - locations
    return jnp.concatenate(jnp.broadcast_arrays(low, high), axis=-1)


def from_distances(locations: jax.Array, distances: jax.Array) -> jax.Array:
    """Returns the boxes of distances; the inverse of `distances`.

    Args:
      locations: `[…, 2]`, x and y.
      distances: `[…, 4]`: left, top, right and bottom.

    Returns:
      float32 `[…, 4]` as `(x0, y0, x1, y1)`.
    """
    locations = locations.astype(jnp.float32)
    distances = distances.astype(jnp.float32)
    low, high = locations - distances[..., :2], locations + distances[..., 2:]
    return jnp.concatenate([low, high], axis=-1)


def centerness(distances: jax.Array) -> jax.Array:
    """Returns `√(min(l, r) / max(l, r) · min(t, b) / max(t, b))`.

    Args:
      distances: `[…, 4]`: left, top, right and bottom.

    Returns:
      float32 `[…]`, 1 at the centre of a box and 0 outside of it.
    """
    distances = jnp.maximum(distances.astype(jnp.float32), 0)
    pairs = jnp.stack([distances[..., 0::2], distances[..., 1::2]], axis=-2)
    small, large = pairs.min(-1), pairs.max(-1)
    share = jnp.where(large > 0, small / jnp.where(large > 0, large, 1), 0).prod(-1)
    # The gradient of the square root at 0 is infinite.
    root = jnp.sqrt(jnp.maximum(share, _LEAST))
    return jnp.where(share > _LEAST, root, 0)
