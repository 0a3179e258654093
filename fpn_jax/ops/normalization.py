"""Normalization of images and maps, as functions of arrays."""

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
