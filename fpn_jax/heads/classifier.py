"""Classifiers: all maps of a pyramid → the logits of one class an image."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.ops.pooling import global_average_pool, global_max_pool
from fpn_jax.pyramid import Pyramid

COMBINES = ("sum", "concat")
POOLS = {"average": global_average_pool, "max": global_max_pool}
CONCAT_WIDTH = 256


class FlattenClassifier(nn.Module):
    """Every level flattened into a fully connected layer of its own.

    The parameters depend on the maps' sizes, so the image size is fixed.

    Attributes:
      num_classes: Number of classes, 2 or more.
      combine: "sum" adds the logits that every level's layer gives; "concat" joins
        `width` features of every level after a ReLU and reads the logits from them.
      width: Features of every level with "concat", where None means 256.
      dropout: Share of the final layer's inputs that training drops, in [0, 1).
      dtype: Type to compute in; parameters and logits are float32.
    """

    num_classes: int
    combine: str = "sum"
    width: int | None = None
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        _check(self.num_classes, self.dropout)
        if self.combine not in COMBINES:
            raise errors.unknown("combine", self.combine, COMBINES)
        if self.combine == "sum" and self.width is not None:
            raise errors.InputError(
                f"width is {self.width}, but combine 'sum' has no features; give None, "
                "or combine 'concat'"
            )
        if self.width is not None and self.width < 1:
            raise errors.InputError(f"width is {self.width}; it must be at least 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `{"logits": [B, num_classes] float32}`.

        Args:
          pyramid: Maps of the image size the parameters were made for.
          train: Whether dropout is active.
        """
        drop = nn.Dropout(self.dropout, deterministic=not train)
        flat = {level: x.reshape(len(x), -1) for level, x in sorted(pyramid.items())}
        if self.combine == "sum":
            logits = [
                _logits(self.num_classes, self.dtype, f"level{level}")(drop(x))
                for level, x in flat.items()
            ]
            return {"logits": sum(logits)}
        features = [
            nn.relu(
                nn.Dense(
                    self.width or CONCAT_WIDTH, dtype=self.dtype, name=f"level{level}"
                )(x)
            )
            for level, x in flat.items()
        ]
        x = drop(jnp.concatenate(features, axis=-1))
        return {"logits": _logits(self.num_classes, self.dtype, "logits")(x)}


class PoolClassifier(nn.Module):
    """Every level pooled to one vector, joined, and read by a fully connected layer.

    Computes in float32: the pooled vectors are small. The image size is free.

    Attributes:
      num_classes: Number of classes, 2 or more.
      pool: "average" or "max", over the whole map.
      dropout: Share of the layer's inputs that training drops, in [0, 1).
    """

    num_classes: int
    pool: str = "average"
    dropout: float = 0.0

    def __post_init__(self):
        _check(self.num_classes, self.dropout)
        if self.pool not in POOLS:
            raise errors.unknown("pool", self.pool, POOLS)
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `{"logits": [B, num_classes] float32}`.

        Args:
          pyramid: Maps of any size.
          train: Whether dropout is active.
        """
        pool = POOLS[self.pool]
        x = jnp.concatenate(
            [pool(pyramid[level].astype(jnp.float32)) for level in sorted(pyramid)],
            axis=-1,
        )
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return {"logits": _logits(self.num_classes, jnp.float32, "logits")(x)}


def _check(num_classes: int, dropout: float) -> None:
    if num_classes < 2:
        raise errors.InputError(
            f"num_classes is {num_classes}; a classifier needs at least 2"
        )
    if not 0 <= dropout < 1:
        raise errors.InputError(f"dropout is {dropout}; it must be in [0, 1)")


def _logits(num_classes: int, dtype: jnp.dtype, name: str) -> nn.Dense:
    def dot_general(*args, **kwargs):
        # Rounding logits to bfloat16 would leave the loss two or three digits.
        return jax.lax.dot_general(
            *args, **kwargs | {"preferred_element_type": jnp.float32}
        )

    return nn.Dense(num_classes, dtype=dtype, dot_general=dot_general, name=name)
