"""A head that says whether there is an object, where it is, and what it is."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.places import cell_centers, convolved
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.boxes import to_center_size, vote
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels

FIRST_DISTANCE = -1.0
"""Bias of the distances: softplus(-1) = 0.31 of the image to every side."""


class Localizer(nn.Module):
    """One box for each image, from cells that vote on it: `Pc, bx, by, bh, bw, c1…cK`.

    After 3 × 3 convolutions every cell predicts the distances from its centre to the
    four sides of the box, and a score. The box is the mean of the boxes of all cells of
    all levels, weighted by the softmax of the scores, so places are read from places
    and not from a flattened map. Object and class are read from the features, with the
    same weights, and from their plain mean. Any image size works.

    Attributes:
      num_classes: Number of classes `K`, 1 or more.
      width: Channels of the convolutions.
      convolutions: Number of convolutions before the predictions.
      levels: Levels to read; None reads all that are given. All levels share the
        convolutions.
      norm: Normalization of the convolutions, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and predictions are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset(
        {"object_logit", "box", "class_logits"}
    )

    num_classes: int
    width: int = 128
    convolutions: int = 2
    levels: tuple[int, ...] | None = None
    norm: str = "group"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        errors.at_least("num_classes", self.num_classes, 1, whole=True)
        errors.at_least("width", self.width, 1, whole=True)
        errors.at_least("convolutions", self.convolutions, 1, whole=True)
        check_norm(self.norm, self.width)
        check_levels_given(self.levels, "the head")
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns the predictions, in float32.

        Args:
          pyramid: Maps of any size, with equal numbers of channels.
          train: Whether batch statistics are used and the running averages updated.

        Returns:
          `object_logit` `[B]`, `box` `[B, 4]` as `(bx, by, bh, bw)` in shares of the
          image, and `class_logits` `[B, num_classes]`.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        maps = select_levels(pyramid, self.levels or tuple(pyramid), "the head")
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        features, centers = [], []
        for x in convolved(maps, self.width, self.convolutions, numerics, train):
            features.append(jax.lax.collapse(x.astype(jnp.float32), 1, 3))
            centers.append(cell_centers(x.shape[1:3]).reshape(-1, 2))
        cells = jnp.concatenate(features, axis=1)
        center = jnp.concatenate(centers)
        scores = nn.Dense(1, name="score")(cells)
        bias = nn.initializers.constant(FIRST_DISTANCE)
        distance = nn.softplus(nn.Dense(4, bias_init=bias, name="distances")(cells))
        corners = jnp.concatenate(
            [center - distance[..., :2], center + distance[..., 2:]], axis=-1
        )
        box = to_center_size(vote(corners, scores))
        vector = jnp.concatenate([vote(cells, scores), cells.mean(axis=1)], axis=-1)
        return {
            "object_logit": nn.Dense(1, name="object")(vector)[..., 0],
            "box": box,
            "class_logits": nn.Dense(self.num_classes, name="classes")(vector),
        }
