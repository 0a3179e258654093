"""Detection on a grid: YOLO, in the form of its second version, arXiv 1612.08242."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors
from fpn_jax.ops import boxes as box_ops
from fpn_jax.ops import grid, losses
from fpn_jax.tasks.base import Batch, Inspection, Predictions
from fpn_jax.tasks.detection import (
    Candidates,
    Detection,
    Truth,
    check_weight,
    truths,
)

WEIGHTS = ("coordinate", "object", "background", "class")


@dataclasses.dataclass(frozen=True)
class GridDetection(Detection):
    """Boxes from the cell that their middle lies in, and its anchor of nearest shape.

    The losses are sums of squares, and the cross-entropy of the class, divided by the
    number of objects of the image, or by 1 if it has none; the weights are those of
    Darknet's `[region]`, which divides by nothing. A predictor without an object whose
    box overlaps a true one with an IoU above `ignore` is not punished. Of two objects
    for one predictor, the larger one is learned. The score is the confidence times the
    probability of the class.

    Attributes:
      anchors: Width and height of every anchor, in pixels of the network's input.
      rescore: Whether the confidence learns the IoU of its box, instead of 1.
      ignore: IoU, in [0, 1].
      coordinate_weight: Weight of the loss of the coordinates, 0 or more.
      object_weight: Weight of the loss of the confidence of objects, 0 or more.
      background_weight: Weight of the loss of all other confidences, 0 or more.
      class_weight: Weight of the loss of the class, 0 or more.

    Raises:
      InputError: A number is out of range, or a name is unknown.
    """

    anchors: tuple[tuple[float, float], ...] = ((24, 24), (40, 40), (72, 72))
    rescore: bool = True
    ignore: float = 0.6
    coordinate_weight: float = 1.0
    object_weight: float = 5.0
    background_weight: float = 1.0
    class_weight: float = 1.0

    reads: ClassVar[frozenset[str]] = frozenset(
        {"grid_boxes", "object_logits", "class_logits"}
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.anchors or any(len(anchor) != 2 for anchor in self.anchors):
            raise errors.InputError(
                f"task.anchors are {self.anchors!r}; give pairs of width and height"
            )
        for side in np.ravel(self.anchors).tolist():
            errors.within("a side of task.anchors", side, 0, math.inf, open_low=True)
        errors.within("task.ignore", self.ignore, 0, 1)
        for name in WEIGHTS:
            check_weight(f"task.{name}_weight", getattr(self, f"{name}_weight"))

    def head_arguments(self) -> dict[str, Any]:
        """Returns `num_classes` and `num_anchors`."""
        return {"num_classes": self.num_classes, "num_anchors": len(self.anchors)}

    def anchor_shapes(self, predictions: Predictions) -> np.ndarray:
        """Returns width and height of the anchors, `[A, 2]`.

        Args:
          predictions: Outputs of the head; not used.
        """
        return np.array(self.anchors, np.float32)

    def inspect(
        self, rows: Mapping[str, np.ndarray], predictions: Predictions
    ) -> Inspection:
        """Returns what every detector says, and how many boxes share a predictor."""
        found = super().inspect(rows, predictions)
        ((level, numbers),) = predictions["grid_boxes"].items()
        shapes, size = jnp.array(self.anchors, jnp.float32), numbers.shape[1:3]
        lost, total = 0, 0
        for truth in truths(rows):
            wins = grid.assign(truth.boxes, truth.valid, shapes, size, 2.0**level).wins
            total += int(truth.valid.sum())
            lost += int((truth.valid & ~wins).sum())
        line = (
            f"{lost} of {total} boxes share cell and anchor with a larger one, and are "
            "not learned"
        )
        return Inspection((*found.lines, line), found.passed)

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns `coordinates`, `object`, `background` and `class` of each example."""
        truth, shapes = Truth.of(batch), jnp.array(self.anchors, jnp.float32)
        ((level, numbers),) = predictions["grid_boxes"].items()
        size, stride = numbers.shape[1:3], 2.0**level
        numbers = jax.lax.collapse(numbers, 1, 4)
        said = jax.nn.sigmoid(
            jax.lax.collapse(predictions["object_logits"][level], 1, 4)
        )
        logits = jax.lax.collapse(predictions["class_logits"][level], 1, 4)
        predictor, wins = grid.assign(truth.boxes, truth.valid, shapes, size, stride)
        count = jnp.maximum(truth.valid.sum(-1), 1)

        def chosen(values: jax.Array) -> jax.Array:
            """Returns the values of the predictor of every box, `[B, M, …]`."""
            return jnp.take_along_axis(values, predictor[..., None], axis=1)

        target = grid.encode(truth.boxes, predictor, size, shapes, stride)
        own = chosen(numbers)
        own = jnp.concatenate([jax.nn.sigmoid(own[..., :2]), own[..., 2:]], axis=-1)
        coordinates = jnp.square(own - target).sum(-1)
        boxes = jax.lax.stop_gradient(grid.decode(numbers, size, shapes, stride))
        overlap = box_ops.iou(boxes[:, :, None], truth.boxes[:, None])
        goal = box_ops.iou(chosen(boxes), truth.boxes) if self.rescore else 1.0
        objects = jnp.square(chosen(said[..., None])[..., 0] - goal)
        of_class = losses.cross_entropy(chosen(logits), truth.labels)

        # A crowd excuses all predictors whose boxes overlap it.
        near = jnp.where(truth.valid[:, None], overlap > self.ignore, False).any(-1)
        near |= jnp.where(truth.ignored[:, None], overlap > 0, False).any(-1)
        taken = jax.vmap(lambda p, w: jnp.zeros(said.shape[1], bool).at[p].max(w))(
            predictor, wins
        )
        background = jnp.where(near | taken, 0, jnp.square(said)).sum(-1)

        def total(values: jax.Array) -> jax.Array:
            return jnp.where(wins, values, 0).sum(-1) / count

        return {
            "coordinates": self.coordinate_weight * total(coordinates),
            "object": self.object_weight * total(objects),
            "background": self.background_weight * background / count,
            "class": self.class_weight * total(of_class),
        }

    def proposed(
        self, predictions: Predictions, image_size: tuple[int, int]
    ) -> dict[int, Candidates]:
        """Returns the level → its boxes, and confidence times probability."""
        ((level, numbers),) = predictions["grid_boxes"].items()
        shapes, size = jnp.array(self.anchors, jnp.float32), numbers.shape[1:3]
        said = jax.nn.sigmoid(predictions["object_logits"][level])
        classes = jax.nn.softmax(predictions["class_logits"][level], axis=-1)
        boxes = grid.decode(jax.lax.collapse(numbers, 1, 4), size, shapes, 2.0**level)
        scores = jax.lax.collapse(said[..., None] * classes, 1, 4)
        return {level: Candidates(boxes, scores)}
