"""A classifier with a fully connected layer for every level."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.logits import check_classifier, logits_layer
from fpn_jax.pyramid import Pyramid

COMBINES = ("sum", "concat")
CONCAT_WIDTH = 256


class FlattenClassifier(nn.Module):
    """Every level flattened and read by its own fully connected layer.

    The parameters depend on the sizes of the maps, so the image size is fixed.

    Attributes:
      num_classes: Number of classes, 2 or more.
      combine: "sum" adds the logits of all levels; "concat" concatenates `width`
        features of every level after a ReLU and computes the logits from them.
      width: Features of every level, for "concat" only; None means 256.
      dropout: Share of the inputs of the last layer that training drops, in [0, 1).
      dtype: Type to compute in; parameters and logits are float32.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"logits"})

    num_classes: int
    combine: str = "sum"
    width: int | None = None
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        check_classifier(self.num_classes, self.dropout)
        errors.one_of("combine", self.combine, COMBINES)
        if self.combine == "sum" and self.width is not None:
            raise errors.InputError(
                f"width is {self.width}, but combine 'sum' does not use it; give None, "
                "or combine 'concat'"
            )
        if self.width is not None:
            errors.at_least("width", self.width, 1, whole=True)
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `{"logits": [B, num_classes] float32}`.

        Args:
          pyramid: Maps of the image size for which the parameters were made.
          train: Whether dropout is active.
        """
        drop = nn.Dropout(self.dropout, deterministic=not train)
        flat = {level: jax.lax.collapse(x, 1) for level, x in sorted(pyramid.items())}
        if self.combine == "sum":
            logits = [
                logits_layer(self.num_classes, self.dtype, f"level{level}")(drop(x))
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
        return {"logits": logits_layer(self.num_classes, self.dtype)(x)}
