"""Inverses of pooling operations: values return to a larger map of zeros."""

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.ops.kernels.extremes import farthest
from fpn_jax.ops.kernels.padding import Padding
from fpn_jax.ops.kernels.windows import Size, check_size, windows


def bed_of_nails(x: jax.Array, factor: Size = 2) -> jax.Array:
    """Puts every cell at the upper left of `factor × factor` cells, the others zero.

    With factor 2, cell `i` becomes cells `2 i` and `2 i + 1`, and the first has the
    value, which is half a cell from the half-pixel centre. Corners are not aligned, and
    nothing is antialiased.

    Args:
      x: Maps, `[B, H, W, C]`.
      factor: Rows and columns that a cell becomes, 1 or more.

    Returns:
      Maps, `[B, H * factor, W * factor, C]`, of the input's type.

    Raises:
      InputError: The factor is below 1.

    Example:
      >>> bed_of_nails(jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1))[0, :, :, 0].tolist()
      [[3.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    rows, columns = (length - 1 for length in check_size("factor", factor))
    nails = ((0, 0, 0), (0, rows, rows), (0, columns, columns), (0, 0, 0))
    return jax.lax.pad(x, jnp.zeros((), x.dtype), nails)


def max_pool_with_indices(
    x: jax.Array,
    window: Size,
    stride: Size | None = None,
    padding: Padding = "valid",
) -> tuple[jax.Array, jax.Array]:
    """Returns the largest value of every window, and its position in the map.

    Of equal values, the first in row-by-row order is returned and gets the gradient.
    Padding is never returned.

    Args:
      x: Maps, `[B, H, W, C]`, of any type but complex.
      window: Height and width of a window, in cells.
      stride: Step from one window to the next, in cells; None is the window's size.
      padding: See `Padding`.

    Returns:
      Maps, `[B, H', W', C]`, of the input's type, and int32 indices of the same shape:
      `row * W + column` in the input map, as in PyTorch.

    Raises:
      InputError: See `fpn_jax.ops.kernels.windows.windows`.

    Example:
      >>> x = jnp.array([[1.0, 5.0, 2.0, 2.0]]).reshape(1, 1, 4, 1)
      >>> values, indices = max_pool_with_indices(x, window=(1, 2))
      >>> values.ravel().tolist(), indices.ravel().tolist()
      ([5.0, 2.0], [1, 2])
    """
    height, width = x.shape[1:3]
    values, inside = windows(x, window, stride, padding)
    positions = jnp.arange(height * width, dtype=jnp.int32)
    positions, _ = windows(
        positions.reshape(1, height, width, 1), window, stride, padding
    )
    lowest = farthest(x.dtype, larger=True)
    values = jnp.where(inside[..., None], values, lowest)
    first = jnp.argmax(values, axis=3, keepdims=True)
    # Padding has the lowest value, so it could win where all cells have it.
    is_lowest = jnp.take_along_axis(values, first, axis=3) == lowest
    first_inside = np.argmax(inside, axis=-1)[..., None, None]
    first = jnp.where(is_lowest, first_inside, first)
    values = jnp.take_along_axis(values, first, axis=3)
    positions = jnp.take_along_axis(positions, first, axis=3)
    return values.squeeze(3), positions.squeeze(3)


def max_unpool(x: jax.Array, indices: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Puts every value back where `max_pool_with_indices` found it, the others zero.

    Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", arXiv
    1311.2901. A cell that several overlapping windows name gets the mean of their
    values, which for the pooled values themselves is the value. The indices alone
    decide the position: there are neither half-pixel centres, aligned corners nor
    antialiasing.

    Args:
      x: Maps, `[B, H', W', C]`, floating.
      indices: `row * W + column` of every value in the result, of the same shape. An
        index outside the result raises an error outside of `jax.jit`; inside, where
        indices are unknown, its value is dropped.
      size: Height and width of the result, `(H, W)`, in cells.

    Returns:
      Maps, `[B, *size, C]`, of the input's type.

    Raises:
      InputError: A length of `size` is below 1.
      ValueError: The indices have another shape, are not integers, or are outside.

    Example:
      >>> x = jnp.array([5.0, 2.0]).reshape(1, 1, 2, 1)
      >>> indices = jnp.array([1, 2]).reshape(1, 1, 2, 1)
      >>> max_unpool(x, indices, (1, 4)).ravel().tolist()
      [0.0, 5.0, 2.0, 0.0]
    """
    height, width = check_size("size", size)
    if indices.shape != x.shape or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices are {indices.dtype} {indices.shape}; maps of {x.shape} need "
            "integers of the same shape"
        )
    if not isinstance(indices, jax.core.Tracer):
        known = np.asarray(indices)
        low, high = known.min(), known.max()
        if low < 0 or high >= height * width:
            raise ValueError(
                f"indices go from {low} to {high}; a map of {height} × {width} cells "
                f"has 0 to {height * width - 1}"
            )
    batch, _, _, channels = x.shape
    indices = jax.lax.collapse(indices, 1, 3)
    targets = jnp.arange(batch)[:, None, None], indices, jnp.arange(channels)
    empty = jnp.zeros((batch, height * width, channels), jnp.float32)
    values = x.reshape(indices.shape).astype(jnp.promote_types(x.dtype, jnp.float32))
    # With wrapping, an index below 0 would count from the end of the map.
    scatter = {"mode": "drop", "wrap_negative_indices": False}
    total = empty.astype(values.dtype).at[targets].add(values, **scatter)
    count = empty.at[targets].add(1.0, **scatter)
    result = total / jnp.maximum(count, 1).astype(total.dtype)
    return result.reshape(batch, height, width, channels).astype(x.dtype)
