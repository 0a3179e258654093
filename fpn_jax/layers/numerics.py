"""Numerics: settings that the blocks of a network share, passed as one field."""

import dataclasses

import jax.numpy as jnp

from fpn_jax.ops.kernels.padding import Padding

EPSILON = 1e-5
"""Added to the variance before its root, unless a paper gives another value."""


@dataclasses.dataclass(frozen=True)
class Numerics:
    """How the layers of a network compute.

    Backbones, necks and context blocks have these as flat attributes, which are keys of
    a config. They make one `Numerics` of them and pass it to their inner blocks.

    Attributes:
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
      norm: Kind of normalization, one of `fpn_jax.layers.norm.NORMS`.
      epsilon: Added to the variance before its root.
      padding: Padding of the convolutions; see `fpn_jax.ops.kernels.padding.Padding`.
    """

    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"
    epsilon: float = EPSILON
    padding: Padding = "symmetric"
