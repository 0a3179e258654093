"""Detection with anchors: RetinaNet, arXiv 1708.02002."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fpn_jax import errors
from fpn_jax.ops import anchors as anchor_ops
from fpn_jax.ops import boxes as box_ops
from fpn_jax.ops import regression
from fpn_jax.tasks.base import Batch, Predictions
from fpn_jax.tasks.detection import (
    ALPHA,
    GAMMA,
    Candidates,
    Detection,
    Truth,
    check_weight,
    inside,
    joined,
)

BOX_LOSSES = ("l1", "smooth_l1", "giou")
SMOOTH_BETA = 0.1
"""Where "smooth_l1" becomes linear, as in detectron2."""


@dataclasses.dataclass(frozen=True)
class RetinaNetDetection(Detection):
    """Boxes relative to anchors, which every cell of every level has.

    An anchor is matched with the true box of the highest IoU if that is at least
    `high`; it is background below `low`, and counts in no loss in between. With
    `keep_best`, every true box keeps its best anchors (`fpn_jax.ops.anchors.match`).
    Focal loss of the classes and a loss of the box; each is a sum, divided by the
    number of matched anchors of the image, or by 1 if it has none.

    Attributes:
      anchor_scale: Side of the smallest square anchor, in strides; the paper's is 4.
      octaves: Number of sizes of anchors, which divide an octave equally.
      ratios: Height / width of the anchors.
      rounded: Whether sizes and corners of the anchors are whole pixels, as in
        torchvision.
      high: IoU from which an anchor is matched, in [0, 1].
      low: IoU below which an anchor is background, in [0, `high`].
      keep_best: Whether true boxes without an anchor at `high` keep their best ones.
      box_loss: "l1" or "smooth_l1" of the coordinates relative to the anchor, summed
        over the four; or "giou", which is `1 − GIoU`.
      box_weight: Weight of the loss of the box, 0 or more.

    Raises:
      InputError: A number is out of range, or a name is unknown.
    """

    anchor_scale: float = 4.0
    octaves: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rounded: bool = False
    high: float = 0.5
    low: float = 0.4
    keep_best: bool = True
    box_loss: str = "l1"
    box_weight: float = 1.0

    reads: ClassVar[frozenset[str]] = frozenset({"class_logits", "box_deltas"})

    def __post_init__(self):
        super().__post_init__()
        errors.within("task.anchor_scale", self.anchor_scale, 0, 64, open_low=True)
        errors.at_least("task.octaves", self.octaves, 1, whole=True)
        if not self.ratios:
            raise errors.InputError("task.ratios are (); give one or more")
        for ratio in self.ratios:
            errors.within("one of task.ratios", ratio, 0, math.inf, open_low=True)
        errors.within("task.high", self.high, 0, 1)
        errors.within("task.low", self.low, 0, self.high)
        errors.one_of("task.box_loss", self.box_loss, BOX_LOSSES)
        check_weight("task.box_weight", self.box_weight)

    def head_arguments(self) -> dict[str, Any]:
        """Returns `num_classes` and `num_anchors`."""
        count = self.octaves * len(self.ratios)
        return {"num_classes": self.num_classes, "num_anchors": count}

    def shapes(self, level: int) -> np.ndarray:
        """Returns the anchors of a cell, centred at the origin, float32 `[A, 4]`.

        Args:
          level: A level of the pyramid that the head reads.
        """
        side = self.anchor_scale * 2**level
        sizes = [side * 2 ** (part / self.octaves) for part in range(self.octaves)]
        if self.rounded:
            sizes = [int(size) for size in sizes]
        return anchor_ops.shapes(sizes, self.ratios, rounded=self.rounded)

    def anchor_shapes(self, predictions: Predictions) -> np.ndarray:
        """Returns width and height of the anchors of all levels, `[A, 2]`.

        Args:
          predictions: Outputs of the head, or their shapes.
        """
        levels = predictions["class_logits"]
        shapes = np.concatenate([self.shapes(level) for level in levels])
        return shapes[:, 2:] - shapes[:, :2]

    def anchors(self, level: int, size: tuple[int, int]) -> np.ndarray:
        """Returns the anchors of a level, float32 `[h · w · A, 4]`.

        Args:
          level: A level of the pyramid that the head reads.
          size: Height and width of its map, in cells.
        """
        stride = (2.0**level, 2.0**level)
        shapes, first = self.shapes(level), self.first_cell(level)
        return anchor_ops.on_grid(shapes, size, stride, first)

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns `class` and `box` of every example."""
        truth = Truth.of(batch)
        logits = joined(predictions["class_logits"], 4)
        deltas = joined(predictions["box_deltas"], 4)
        anchors = jnp.concatenate(
            [
                self.anchors(level, found.shape[1:3])
                for level, found in predictions["class_logits"].items()
            ]
        )
        match = anchor_ops.match(
            box_ops.iou(truth.boxes[:, :, None], anchors),
            truth.valid,
            high=self.high,
            low=self.low,
            keep_best=self.keep_best,
        )
        positive, chosen = match >= 0, jnp.maximum(match, 0)
        count = jnp.maximum(positive.sum(-1), 1)
        label = jnp.take_along_axis(truth.labels, chosen, axis=1)
        target = jax.nn.one_hot(jnp.where(positive, label, -1), self.num_classes)
        focal = optax.sigmoid_focal_loss(logits, target, alpha=ALPHA, gamma=GAMMA)
        middle = (anchors[:, :2] + anchors[:, 2:]) / 2
        hidden = inside(middle, truth.boxes, truth.ignored)
        counted = positive | ((match == anchor_ops.NEGATIVE) & ~hidden)
        boxes = jnp.take_along_axis(truth.boxes, chosen[..., None], axis=1)
        error = self._box(deltas, boxes, anchors)
        return {
            "class": jnp.where(counted, focal.sum(-1), 0).sum(-1) / count,
            "box": self.box_weight * jnp.where(positive, error, 0).sum(-1) / count,
        }

    def _box(
        self, deltas: jax.Array, boxes: jax.Array, anchors: jax.Array
    ) -> jax.Array:
        """Returns the loss of the box of every anchor, `[B, N]`."""
        if self.box_loss == "giou":
            return 1 - box_ops.giou(box_ops.decode(deltas, anchors), boxes)
        error = deltas - box_ops.encode(boxes, anchors)
        if self.box_loss == "l1":
            return regression.LOSSES["l1"](error).sum(-1)
        return optax.huber_loss(error, delta=SMOOTH_BETA).sum(-1) / SMOOTH_BETA

    def proposed(
        self, predictions: Predictions, image_size: tuple[int, int]
    ) -> dict[int, Candidates]:
        """Returns level → the decoded boxes, and the probabilities of the classes."""
        found = {}
        for level, logits in predictions["class_logits"].items():
            anchors = jnp.asarray(self.anchors(level, logits.shape[1:3]))
            deltas = jax.lax.collapse(predictions["box_deltas"][level], 1, 4)
            scores = jax.nn.sigmoid(jax.lax.collapse(logits, 1, 4))
            found[level] = Candidates(box_ops.decode(deltas, anchors), scores)
        return found
