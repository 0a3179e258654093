"""Gaussian pyramids of images."""

import jax
import jax.numpy as jnp

from fpn_jax import errors
from fpn_jax.pyramid import Pyramid

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Burt & Adelson's kernel, which is close to a Gaussian with a sigma of 1 pixel."""


def gaussian_down(x: jax.Array) -> jax.Array:
    """Returns images of half the size, smoothed first to avoid aliasing.

    Smooths rows and columns with `(1, 4, 6, 4, 1) / 16` and keeps every other pixel,
    starting with the first (Burt & Adelson, "The Laplacian Pyramid as a Compact Image
    Code", 1983). Borders are mirrored about the outermost pixel, which is not repeated.
    OpenCV's `pyrDown` gives the same result.

    Args:
      x: Images, `[B, H, W, C]`, of a floating-point type.

    Returns:
      Images, `[B, ceil(H / 2), ceil(W / 2), C]`, of the input's type.

    Example:
      >>> x = jnp.array([16.0, 0.0, 0.0, 0.0, 16.0]).reshape(1, 1, 5, 1)
      >>> gaussian_down(x)[0, 0, :, 0].tolist()
      [6.0, 2.0, 6.0]
    """
    y = x.astype(jnp.float32)
    for axis in (1, 2):
        y = _smooth_and_halve(y, axis)
    return y.astype(x.dtype)


def gaussian_pyramid(x: jax.Array, num_scales: int) -> Pyramid:
    """Returns images at the full size, half the size, a quarter of the size, and so on.

    Args:
      x: Images, `[B, H, W, C]`, of a floating-point type.
      num_scales: Number of sizes, full size included; 1 or more.

    Returns:
      Level → images, `[B, ceil(H / 2^level), ceil(W / 2^level), C]`, for the levels 0
      to `num_scales - 1`.

    Raises:
      InputError: `num_scales` is below 1.

    Example:
      >>> pyramid = gaussian_pyramid(jnp.ones((1, 5, 8, 3)), 3)
      >>> {level: x.shape for level, x in pyramid.items()}
      {0: (1, 5, 8, 3), 1: (1, 3, 4, 3), 2: (1, 2, 2, 3)}
    """
    errors.at_least("num_scales", num_scales, 1, whole=True)
    pyramid = {0: x}
    for level in range(1, num_scales):
        pyramid[level] = gaussian_down(pyramid[level - 1])
    return pyramid


def _smooth_and_halve(x: jax.Array, axis: int) -> jax.Array:
    reach, length = len(BINOMIAL) // 2, x.shape[axis]
    widths = [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, widths, mode="reflect")
    return sum(
        weight * jax.lax.slice_in_dim(padded, tap, tap + length, stride=2, axis=axis)
        for tap, weight in enumerate(BINOMIAL)
    )
