"""Localization of one object: whether there is one, where it is, and what it is."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from fpn_jax import errors
from fpn_jax.metrics import sums
from fpn_jax.ops import boxes as box_ops
from fpn_jax.ops import losses, regression
from fpn_jax.tasks.base import Answer, Batch, Predictions, Rows, Task

BOX_LOSSES = ("l1", "l2", "smooth_l1", "giou")
MATCH = 0.5
"""IoU from which a box counts as found."""


@dataclasses.dataclass(frozen=True)
class Localization(Task):
    """One box for each image: `y = (Pc, bx, by, bh, bw, c1…cK)`.

    `Pc` is 1 if the image shows an object; centre and size of its box are shares of the
    image, with (0, 0) at the top left. Of several objects the largest is the target.
    The losses of box and class count only where `Pc = 1`.

    Attributes:
      num_classes: Number of classes of objects, 1 or more.
      box_loss: Loss of the box: "l1", "l2" or "smooth_l1", summed over its four
        numbers, or "giou", which is `1 − GIoU`.
      box_weight: Weight of the loss of the box, 0 or more.
      class_weight: Weight of the cross-entropy of the class, 0 or more.
      threshold: An object is reported from this probability on, in [0, 1].

    Raises:
      InputError: The loss is unknown, or a number is out of range.
    """

    num_classes: int
    box_loss: str = "giou"
    box_weight: float = 2.0
    class_weight: float = 1.0
    threshold: float = 0.5

    kind: ClassVar[str] = "box"
    monitor: ClassVar[str] = "box_iou"
    needs: ClassVar[frozenset[str]] = frozenset({"boxes", "box_labels"})
    reads: ClassVar[frozenset[str]] = frozenset({"object_logit", "box", "class_logits"})
    framing: ClassVar[str] = "letterbox"
    # The batch keeps the largest box of an image.
    max_boxes: ClassVar[int] = 1
    places: ClassVar[bool] = True
    definitions: ClassVar[Mapping[str, str]] = {
        "loss": "mean over the images of the sum of the losses",
        "object_accuracy": "share of the images in which the presence of an object is "
        "right",
        "box_iou": "mean IoU of the predicted and the largest true box, over the "
        "images with an object",
        "found": "share of the images with an object whose IoU is 0.5 or more",
        "class_accuracy": "share of the images with an object whose class is right",
    }

    def __post_init__(self):
        errors.at_least("num_classes", self.num_classes, 1, whole=True)
        errors.one_of("task.box_loss", self.box_loss, BOX_LOSSES)
        for name in ("box_weight", "class_weight"):
            weight = getattr(self, name)
            errors.within(f"task.{name}", weight, 0, math.inf, open_high=True)
        errors.within("task.threshold", self.threshold, 0, 1)

    def head_arguments(self) -> dict[str, Any]:
        """Returns `num_classes`."""
        return {"num_classes": self.num_classes}

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns `object`, `box` and `class` of every example.

        `object` is the logistic loss of `Pc`. Where `Pc = 0`, the values of the true
        box and class have no effect, even if they are NaN.
        """
        there, target, label = _target(batch)
        logit = predictions["object_logit"].astype(jnp.float32)
        classes = losses.cross_entropy(predictions["class_logits"], label)
        named = there & (batch["box_labels"][:, 0] >= 0)
        return {
            "object": optax.sigmoid_binary_cross_entropy(logit, there.astype(float)),
            "box": self.box_weight
            * jnp.where(there, self._box(predictions["box"], target), 0),
            "class": self.class_weight * jnp.where(named, classes, 0),
        }

    def _box(self, box: jax.Array, target: jax.Array) -> jax.Array:
        """Returns the loss `[B]` of boxes `(x, y, height, width)`."""
        box = box.astype(jnp.float32)
        if self.box_loss == "giou":
            corners = box_ops.from_center_size
            return 1 - box_ops.giou(corners(box), corners(target))
        return regression.LOSSES[self.box_loss](box - target).sum(-1)

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, sums.Metric]:
        """Returns the metrics of `definitions`."""
        weight = batch["weight"]
        there, target, label = _target(batch)
        corners = box_ops.from_center_size
        iou = box_ops.iou(corners(predictions["box"]), corners(target))
        with_object = weight * there
        named = with_object * (batch["box_labels"][:, 0] >= 0)
        predicted = jnp.argmax(predictions["class_logits"], axis=-1)
        said = jax.nn.sigmoid(predictions["object_logit"]) >= self.threshold
        return {
            "loss": sums.Mean.of(sum(self.losses(predictions, batch).values()), weight),
            "object_accuracy": sums.Accuracy.of(said, there, weight),
            "box_iou": sums.Mean.of(iou, with_object),
            "found": sums.Accuracy.of(iou >= MATCH, True, with_object),
            "class_accuracy": sums.Accuracy.of(predicted, label, named),
        }

    def decode(self, predictions: Predictions, image_size: tuple[int, int]) -> Answer:
        """Returns the box of every image, whether it is reported, and its class.

        Returns:
          `boxes` float32 `[B, 1, 4]` in pixels, clipped to the image; `box_scores`
          float32 `[B, 1]`, the probability of an object; `box_labels` int32 `[B, 1]`,
          −1 where that probability is below the threshold; and `box_probabilities`
          float32 `[B, 1, K]`.
        """
        boxes = box_ops.from_center_size(predictions["box"].astype(jnp.float32))
        boxes = box_ops.scale(jnp.clip(boxes, 0, 1), image_size)
        score = jax.nn.sigmoid(predictions["object_logit"].astype(jnp.float32))
        logits = predictions["class_logits"].astype(jnp.float32)
        label = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return {
            "boxes": boxes[:, None],
            "box_scores": score[:, None],
            "box_labels": jnp.where(score >= self.threshold, label, -1)[:, None],
            "box_probabilities": jax.nn.softmax(logits, axis=-1)[:, None],
        }

    def keep(self, answer: Answer, batch: Batch) -> Rows:
        """Returns predicted and true box, class and score of every example."""
        iou = box_ops.iou(answer["boxes"][:, 0], batch["boxes"][:, 0])
        return {
            "box": answer["boxes"][:, 0],
            "score": answer["box_scores"][:, 0],
            "predicted": answer["box_labels"][:, 0],
            "true_box": batch["boxes"][:, 0],
            "label": jnp.where(_is_there(batch), batch["box_labels"][:, 0], -1),
            "there": _is_there(batch),
            "iou": iou,
        }


def _is_there(batch: Batch) -> jax.Array:
    """Returns whether an image shows an object, bool `[B]`; padding has no area."""
    x0, y0, x1, y1 = jnp.moveaxis(batch["boxes"][:, 0], -1, 0)
    return (x1 > x0) & (y1 > y0)


def _target(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `Pc` bool `[B]`, `(bx, by, bh, bw)` `[B, 4]`, and the class `[B]`.

    The box and the class of an image without an object are replaced before anything is
    computed, so that NaN cannot reach the gradient.
    """
    there = _is_there(batch)
    height, width = batch["image"].shape[1:3]
    whole = jnp.array([0.0, 0.0, width, height])
    boxes = jnp.where(there[:, None], batch["boxes"][:, 0], whole)
    shares = box_ops.scale(boxes.astype(jnp.float32), (1 / height, 1 / width))
    label = jnp.maximum(batch["box_labels"][:, 0], 0)
    return there, box_ops.to_center_size(shares), jnp.where(there, label, 0)
