"""What heads share that predict places: convolutions over levels, centres of cells."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.pyramid import Pyramid


def cell_centers(size: tuple[int, int]) -> jax.Array:
    """Returns the centre of every cell in shares of the image, `[h, w, 2]`, x first.

    Args:
      size: Height and width of the map, in cells.

    Example:
      >>> cell_centers((1, 2)).tolist()
      [[[0.25, 0.5], [0.75, 0.5]]]
    """
    height, width = size
    x, y = (jnp.arange(n, dtype=jnp.float32) + 0.5 for n in (width, height))
    return jnp.stack(jnp.meshgrid(x / width, y / height), axis=-1)


def convolved(
    maps: Pyramid, width: int, count: int, numerics: Numerics, train: bool
) -> Iterator[jax.Array]:
    """Yields every map after 3 × 3 convolutions that all maps share, each with a ReLU.

    Call it inside of a compact method.

    Args:
      maps: Maps with equal numbers of channels.
      width: Channels of the convolutions.
      count: Number of convolutions.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
      train: Whether batch statistics are used and the running averages updated.
    """
    layers = [
        ConvNorm(width, kernel_size=3, numerics=numerics, name=f"conv{index}")
        for index in range(1, count + 1)
    ]
    for x in maps.values():
        for layer in layers:
            x = nn.relu(layer(x, train=train))
        yield x
