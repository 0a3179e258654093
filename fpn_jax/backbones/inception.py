"""Blocks of the Inception networks: parallel branches, concatenated."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import average_pool, max_pool
from fpn_jax.ops.receptive_field import SlidingWindow

EPSILON = 1e-3
"""Added to the variance in batch normalization."""


class Layer(NamedTuple):
    """One convolution.

    Attributes:
      features: Output channels.
      kernel_size: Height and width of the kernel, in cells; one number for both.
      stride: Step, in cells.
      trimmed: Whether the map is not padded in the paper.
    """

    features: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    trimmed: bool = False

    def padding(self, paper: bool) -> str:
        """Returns the padding of the convolution, `paper` as in the other classes."""
        return "valid" if paper and self.trimmed else "symmetric"

    def window(self, paper: bool) -> SlidingWindow:
        """Returns the window of the convolution, whose kernel is square."""
        return SlidingWindow(self.kernel_size, self.stride, self.padding(paper))


class Branch(NamedTuple):
    """One branch of an inception block.

    Attributes:
      layers: Convolutions in sequence.
      pool: Pool before them, a key of `POOLS`, or None.
      forks: Parallel convolutions after them, whose maps are concatenated.
    """

    layers: tuple[Layer, ...] = ()
    pool: str | None = None
    forks: tuple[Layer, ...] = ()


def _average(x: jax.Array, paper: bool) -> jax.Array:
    # Cells beyond the edge count as zeros: published weights were trained this way.
    around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return average_pool(around, window=3, stride=1)


def _max(x: jax.Array, paper: bool) -> jax.Array:
    return max_pool(x, window=3, stride=1, padding=1)


def _halve(x: jax.Array, paper: bool) -> jax.Array:
    return max_pool(x, window=3, stride=2, padding=0 if paper else 1)


POOLS = {"average": _average, "max": _max, "halve": _halve}
"""Name → 3 × 3 pool of a branch; "halve" has stride 2."""


class Chain(nn.Module):
    """Convolutions in sequence, each with batch normalization and a ReLU.

    Attributes:
      layers: The convolutions.
      paper: Whether maps are padded as in the paper.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    layers: tuple[Layer, ...]
    paper: bool
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the map after the last convolution."""
        for index, layer in enumerate(self.layers, start=1):
            padding = layer.padding(self.paper)
            x = ConvNorm(
                layer.features,
                layer.kernel_size,
                stride=layer.stride,
                numerics=dataclasses.replace(self.numerics, padding=padding),
                name=f"conv{index}",
            )(x, train=train)
            x = nn.relu(x)
        return x


class Mixed(nn.Module):
    """Parallel branches, concatenated along their channels.

    Attributes:
      branches: The branches.
      paper: Whether maps are padded as in the paper.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    branches: tuple[Branch, ...]
    paper: bool
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H, W, C]`, where `C` is the sum of the branches' channels."""

        def chain(x, layers, name):
            made = Chain(layers, self.paper, self.numerics, name=name)
            return made(x, train=train)

        maps = []
        for index, branch in enumerate(self.branches, start=1):
            y = POOLS[branch.pool](x, self.paper) if branch.pool else x
            y = chain(y, branch.layers, f"branch{index}")
            forks = [
                chain(y, (layer,), f"branch{index}_fork{side}")
                for side, layer in enumerate(branch.forks, start=1)
            ]
            maps += forks or [y]
        return jnp.concatenate(maps, axis=-1)


class Stage(nn.Module):
    """Inception blocks in sequence.

    Attributes:
      blocks: Branches of every block.
      paper: Whether maps are padded as in the paper.
      numerics: See `fpn_jax.layers.numerics.Numerics`.
    """

    blocks: tuple[tuple[Branch, ...], ...]
    paper: bool
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the map after the last block."""
        for index, branches in enumerate(self.blocks):
            block = Mixed(branches, self.paper, self.numerics, name=f"block{index}")
            x = block(x, train=train)
        return x
