"""Global pooling and a fully connected layer, the classifier of most networks."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from fpn_jax.heads.logits import check_classifier, logits_layer
from fpn_jax.layers import pooling
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels
from fpn_jax.registry import Spec


class PoolClassifier(nn.Module):
    """Levels pooled to vectors, concatenated, and read by a fully connected layer.

    The head computes in float32, because the pooled vectors are small. Any image size
    works.

    Attributes:
      num_classes: Number of classes, 2 or more.
      pool: Pooling layer over the whole map: one of `fpn_jax.layers.pooling.names()`,
        such as "average", or a dict with `name` and its own arguments. Each level has
        its own pooling parameters, if any.
      levels: Levels to read; None reads all that are given.
      dropout: Share of the inputs of the last layer that training drops, in [0, 1).
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"logits"})

    num_classes: int
    pool: Spec = "average"
    levels: tuple[int, ...] | None = None
    dropout: float = 0.0

    def __post_init__(self):
        check_classifier(self.num_classes, self.dropout)
        check_levels_given(self.levels, "the head")
        self.pool = FrozenDict(pooling.REGISTRY.spec(self.pool))
        # Building it refuses unknown arguments and values.
        self._pool(parent=None)
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
        maps = select_levels(pyramid, self.levels or tuple(pyramid), "the classifier")
        vectors = []
        for level, x in maps.items():
            pool = self._pool(name=f"pool{level}")
            vectors.append(pool(x.astype(jnp.float32), train=train))
        x = jnp.concatenate(vectors, axis=-1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return {"logits": logits_layer(self.num_classes, jnp.float32)(x)}

    def _pool(self, **given) -> nn.Module:
        # A whole map has no windows to place.
        return pooling.build(self.pool, given, withheld=pooling.PLACEMENT)
