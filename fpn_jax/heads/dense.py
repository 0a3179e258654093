"""The head of RetinaNet, arXiv 1708.02002."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.towers import BACKGROUND, Tower, output
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels


class DenseAnchors(nn.Module):
    """Class and place of every anchor of every cell, from two towers of convolutions.

    All levels share the towers. The paper has no normalization; torchvision's second
    version has group normalization, and no biases of the convolutions before it.

    Attributes:
      num_classes: Number of classes `K`, 1 or more.
      num_anchors: Anchors of a cell `A`, 1 or more.
      width: Channels of the towers.
      convolutions: Number of convolutions of each tower; the paper has 4.
      levels: Levels to read; None reads all that are given.
      norm: Normalization of the towers, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and predictions are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"class_logits", "box_deltas"})

    num_classes: int
    num_anchors: int
    width: int = 256
    convolutions: int = 4
    levels: tuple[int, ...] | None = None
    norm: str = "none"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        for name in ("num_classes", "num_anchors", "width", "convolutions"):
            errors.at_least(name, getattr(self, name), 1, whole=True)
        check_norm(self.norm, self.width)
        check_levels_given(self.levels, "the head")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, pyramid: Pyramid, *, train: bool
    ) -> dict[str, dict[int, jax.Array]]:
        """Returns the predictions of every level, in float32.

        Args:
          pyramid: Maps of any size, with equal numbers of channels.
          train: Whether batch statistics are used and the running averages updated.

        Returns:
          Level → `[B, h, w, A, …]`: `class_logits` with `num_classes` numbers, and
          `box_deltas` with the 4 of `fpn_jax.ops.boxes.encode`.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        maps = select_levels(pyramid, self.levels or tuple(pyramid), "the head")
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        tower = (self.width, self.convolutions, numerics)
        for_class, for_box = (
            Tower(*tower, name=f"{n}_tower") for n in ("class", "box")
        )
        anchors, classes = self.num_anchors, self.num_classes
        class_of = output(anchors * classes, name="classes", bias=BACKGROUND)
        box_of = output(anchors * 4, name="boxes")
        logits, deltas = {}, {}
        for level, x in maps.items():
            cells = (*x.shape[:3], anchors)
            found = class_of(for_class(x, train=train))
            logits[level] = found.reshape(*cells, classes)
            deltas[level] = box_of(for_box(x, train=train)).reshape(*cells, 4)
        return {"class_logits": logits, "box_deltas": deltas}
