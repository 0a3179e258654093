"""The head of YOLO, arXiv 1612.08242: every cell of one map predicts several boxes."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.towers import Tower, output
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.pyramid import Pyramid, select_levels


class Grid(nn.Module):
    """Box, confidence and class of every anchor of every cell of one level.

    Attributes:
      num_classes: Number of classes `K`, 1 or more.
      num_anchors: Anchors of a cell `A`, 1 or more.
      width: Channels of the convolutions.
      convolutions: Number of 3 × 3 convolutions before the predictions.
      level: Level to read; None reads the coarsest one.
      norm: Normalization of the convolutions, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and predictions are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset(
        {"grid_boxes", "object_logits", "class_logits"}
    )

    num_classes: int
    num_anchors: int
    width: int = 256
    convolutions: int = 2
    level: int | None = None
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        for name in ("num_classes", "num_anchors", "width", "convolutions"):
            errors.at_least(name, getattr(self, name), 1, whole=True)
        check_norm(self.norm, self.width)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, pyramid: Pyramid, *, train: bool
    ) -> dict[str, dict[int, jax.Array]]:
        """Returns the predictions of the level, in float32.

        Args:
          pyramid: Maps of any size.
          train: Whether batch statistics are used and the running averages updated.

        Returns:
          Level → `[B, h, w, A, …]`: `grid_boxes` with the 4 numbers of
          `fpn_jax.ops.grid.decode`, `object_logits` without a further dimension, and
          `class_logits` with `num_classes` numbers.

        Raises:
          ValueError: The level is missing.
        """
        level = max(pyramid) if self.level is None else self.level
        (x,) = select_levels(pyramid, (level,), "the head").values()
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        tower = Tower(self.width, self.convolutions, numerics, name="tower")
        x = tower(x, train=train)
        cells = (*x.shape[:3], self.num_anchors)
        ends = {"grid_boxes": 4, "object_logits": 1, "class_logits": self.num_classes}
        found = {
            name: output(self.num_anchors * end, name=name)(x).reshape(*cells, end)
            for name, end in ends.items()
        }
        found["object_logits"] = found["object_logits"][..., 0]
        return {name: {level: value} for name, value in found.items()}
