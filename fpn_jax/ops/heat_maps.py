"""Heat maps of points: Gaussians as targets, and the place of a maximum.

A cell `(i, j)` of a map of an image of `H × W` pixels is centred at the pixel
coordinates `((j + ½) · W / w, (i + ½) · H / h)`, so a point `(x, y)` has the cell
coordinates `x · w / W − ½` and `y · h / H − ½`.
"""

import jax
import jax.numpy as jnp

_LEAST = 1e-10
"""Smallest value whose logarithm is taken."""


def gaussians(points: jax.Array, size: tuple[int, int], sigma: float) -> jax.Array:
    """Returns a map for every point, `exp(−d² / 2σ²)`, with the maximum 1 at the point.

    Args:
      points: `[B, K, 2]`, x and y in cells; they may lie between cells and outside.
      size: Height and width of the maps, in cells.
      sigma: `σ`, in cells.

    Returns:
      float32 `[B, h, w, K]`.
    """
    height, width = size
    x, y = points[..., 0].astype(jnp.float32), points[..., 1].astype(jnp.float32)

    def along(length, place):
        cells = jnp.arange(length, dtype=jnp.float32)
        return jnp.exp(-jnp.square(cells[:, None] - place[:, None]) / (2 * sigma**2))

    return along(height, y)[:, :, None] * along(width, x)[:, None]


def log_softmax(maps: jax.Array) -> jax.Array:
    """Returns the logarithm of the softmax over the cells of every map.

    Args:
      maps: Logits, `[B, h, w, K]`.
    """
    return jax.nn.log_softmax(maps.astype(jnp.float32), axis=(1, 2))


def peaks(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the place of the maximum of every map, between cells, and its value.

    A map is smoothed along both axes by (1, 2, 1) / 4, and its greatest cell is moved
    by `−H⁻¹ g`, where `g` and `H` are the first and second differences of the logarithm
    there, "Distribution-Aware Coordinate Representation" (arXiv 1910.06278), sections
    3.2 and 3.3. Differs from the paper: the smoothing is narrower than the Gaussians. A
    place moves by at most half a cell, and not at all at the border or where the
    logarithm is not concave.

    Args:
      maps: `[B, h, w, K]`; NaN counts as 0.

    Returns:
      float32 `[B, K, 2]`, x and y in cells, and float32 `[B, K]`, the smoothed maximum.
    """
    batch, height, width, count = maps.shape
    maps = maps.astype(jnp.float32)
    maps = _smoothed(_smoothed(jnp.where(jnp.isnan(maps), 0, maps), 1), 2)
    flat = maps.reshape(batch, height * width, count)
    best = jnp.argmax(flat, axis=1)
    value = jnp.take_along_axis(flat, best[:, None], axis=1)[:, 0]
    row, column = best // width, best % width
    logs = jnp.log(jnp.maximum(maps, _LEAST))

    def at(down, across):
        rows = jnp.clip(row + down, 0, height - 1)
        columns = jnp.clip(column + across, 0, width - 1)
        index = (rows * width + columns)[:, None]
        return jnp.take_along_axis(logs.reshape(flat.shape), index, axis=1)[:, 0]

    middle = at(0, 0)
    dx, dy = (at(0, 1) - at(0, -1)) / 2, (at(1, 0) - at(-1, 0)) / 2
    dxx = at(0, 1) - 2 * middle + at(0, -1)
    dyy = at(1, 0) - 2 * middle + at(-1, 0)
    dxy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = dxx * dyy - dxy * dxy
    inside = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    concave = inside & (dxx < 0) & (determinant > 0)
    safe = jnp.where(concave, determinant, 1)
    move = jnp.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=-1)
    move = jnp.where(concave[..., None], move / safe[..., None], 0)
    cell = jnp.stack([column, row], axis=-1).astype(jnp.float32)
    return cell + jnp.clip(move, -0.5, 0.5), value


def _smoothed(maps: jax.Array, axis: int) -> jax.Array:
    """Returns `(a + 2 b + c) / 4` of neighbours along an axis, edges repeated."""
    length = maps.shape[axis]
    places = jnp.arange(length)
    before = jnp.take(maps, jnp.maximum(places - 1, 0), axis)
    after = jnp.take(maps, jnp.minimum(places + 1, length - 1), axis)
    return (before + 2 * maps + after) / 4


def to_cells(
    points: jax.Array, image_size: tuple[int, int], size: tuple[int, int]
) -> jax.Array:
    """Returns points in cells of a map.

    Args:
      points: `[…, 2]`, x and y in pixels.
      image_size: Height and width of the image, in pixels.
      size: Height and width of the map, in cells.
    """
    scale = jnp.array([size[1] / image_size[1], size[0] / image_size[0]], jnp.float32)
    return points * scale - 0.5


def to_pixels(
    cells: jax.Array, image_size: tuple[int, int], size: tuple[int, int]
) -> jax.Array:
    """Returns points in pixels of the image; the inverse of `to_cells`.

    Args:
      cells: `[…, 2]`, x and y in cells.
      image_size: Height and width of the image, in pixels.
      size: Height and width of the map, in cells.
    """
    scale = jnp.array([image_size[1] / size[1], image_size[0] / size[0]], jnp.float32)
    return (cells + 0.5) * scale
