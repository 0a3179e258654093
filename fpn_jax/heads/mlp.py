"""Fully connected layers on one map: the classifier of LeNet, AlexNet and VGG."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.logits import check_classifier, logits_layer
from fpn_jax.ops.spatial_pyramid import adaptive_average_pool
from fpn_jax.pyramid import Pyramid, select_levels

ACTIVATIONS = {"relu": nn.relu, "tanh": jnp.tanh}


class MlpClassifier(nn.Module):
    """One map averaged to a grid, flattened, and read by fully connected layers.

    The grid allows any image size; at the size of a paper's images, the grid is the map
    itself. Values are flattened in the order `(H, W, C)`.

    Attributes:
      num_classes: Number of classes, 2 or more.
      grid: Cells a side that the map is averaged to.
      widths: Features of every hidden layer.
      activation: Activation after each of them: "relu" or "tanh".
      dropout: Share of the activations of every hidden layer that training drops, in
        [0, 1).
      level: Level to read; None reads the coarsest that is given.
      dtype: Type to compute in; parameters and logits are float32.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"logits"})

    num_classes: int
    grid: int = 1
    widths: tuple[int, ...] = (1024,)
    activation: str = "relu"
    dropout: float = 0.0
    level: int | None = None
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        check_classifier(self.num_classes, self.dropout)
        errors.at_least("grid", self.grid, 1, whole=True)
        if not self.widths:
            raise errors.InputError("widths are (); give one or more")
        for width in self.widths:
            errors.at_least("one of the widths", width, 1, whole=True)
        errors.one_of("activation", self.activation, ACTIVATIONS)
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `{"logits": [B, num_classes] float32}`.

        Args:
          pyramid: Maps of any size.
          train: Whether dropout is active.

        Raises:
          ValueError: `level` is missing.
        """
        level = max(pyramid) if self.level is None else self.level
        x = select_levels(pyramid, (level,), "the classifier")[level]
        x = adaptive_average_pool(x, self.grid)
        x = jax.lax.collapse(x, 1)
        for index, width in enumerate(self.widths, start=1):
            x = nn.Dense(width, dtype=self.dtype, name=f"hidden{index}")(x)
            x = ACTIVATIONS[self.activation](x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return {"logits": logits_layer(self.num_classes, self.dtype)(x)}
