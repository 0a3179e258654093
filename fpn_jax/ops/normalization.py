"""Normalization of images and maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Returns `(images / 255 - mean) / std`, in float32.

    Args:
      images: `[..., C]`, values 0 to 255, of any type.
      mean: One value a channel, on the scale 0 to 1.
      std: One positive value a channel, on the scale 0 to 1.

    Returns:
      `[..., C]` float32.

    Example:
      >>> image = jnp.array([[[0, 255]]], jnp.uint8)
      >>> normalize(image, mean=(0.5, 0.5), std=(0.25, 0.5)).tolist()
      [[[-2.0, 1.0]]]
    """
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std


def local_response_norm(
    x: jax.Array,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> jax.Array:
    """Returns `x / (k + alpha / size * Σ x²)^beta`, the sum over neighbouring channels.

    Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks,
    2012, whose constants are the defaults. As in PyTorch, `alpha` is divided by the
    window size; the paper's formula has no division, and `alpha = 5e-4` equals it.

    Args:
      x: `[..., C]`, floating.
      size: Channels in a window, at least 1. Channels beyond the ends count as zeros.
        An even window has one channel more below its centre than above.
      k: Added to the mean square, above 0.
      alpha: Weight of the mean square, at least 0.
      beta: Exponent.

    Returns:
      `[..., C]`, of the input's type; sums are float32.

    Example:
      >>> x = jnp.array([1.0, 1.0, 0.0])
      >>> local_response_norm(x, size=3, k=2.0, alpha=3.0, beta=1.0).tolist()
      [0.25, 0.25, 0.0]
    """
    squares = jnp.square(x.astype(jnp.float32))
    ones = (1,) * (x.ndim - 1)
    sums = jax.lax.reduce_window(
        squares,
        0.0,
        jax.lax.add,
        (*ones, size),
        (*ones, 1),
        (*((0, 0),) * (x.ndim - 1), (size // 2, (size - 1) // 2)),
    )
    return (x / (k + alpha / size * sums) ** beta).astype(x.dtype)
