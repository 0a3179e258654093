"""Spatial pyramid pooling and a fully connected layer: the classifier of SPP-net."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax.heads.logits import check_classifier, logits_layer
from fpn_jax.layers.pooling import SpatialPyramid
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels
from fpn_jax.registry import Spec


class SpatialPyramidClassifier(nn.Module):
    """Maps divided into bins, each pooled, and read by a fully connected layer.

    Spatial pyramid pooling (He et al., arXiv 1406.4729): a map of any size gives
    `Σ bins² · C` values, which, unlike one vector a map, keep coarse positions. The
    head computes in float32.

    Attributes:
      num_classes: Number of classes, 2 or more.
      bins: Bins a side of every division.
      pool: Pooling layer for windows: one of `fpn_jax.layers.pooling.names()`, or a
        dict with `name` and its own arguments. Each level has its own pooling
        parameters, if any; the divisions of a level share them.
      levels: Levels to read; None reads the coarsest that is given.
      dropout: Share of the inputs of the last layer that training drops, in [0, 1).
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"logits"})

    num_classes: int
    bins: tuple[int, ...] = (4, 2, 1)
    pool: Spec = "max"
    levels: tuple[int, ...] | None = None
    dropout: float = 0.0

    def __post_init__(self):
        check_classifier(self.num_classes, self.dropout)
        check_levels_given(self.levels, "the head")
        # Building the layer refuses unknown attributes and values; a spec must be
        # hashable to be an attribute of a module.
        self.pool = self._layer(parent=None).pool
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `{"logits": [B, num_classes] float32}`.

        Args:
          pyramid: Maps of any size.
          train: Whether dropout and random pooling are active.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        levels = self.levels or (max(pyramid),)
        maps = select_levels(pyramid, levels, "the classifier")
        vectors = [
            self._layer(name=f"pool{level}")(x.astype(jnp.float32), train=train)
            for level, x in maps.items()
        ]
        x = jnp.concatenate(vectors, axis=-1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return {"logits": logits_layer(self.num_classes, jnp.float32)(x)}

    def _layer(self, **fields) -> SpatialPyramid:
        return SpatialPyramid(self.bins, self.pool, **fields)
