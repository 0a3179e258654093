"""Detection: what every detector shares, from candidates to average precision."""

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import errors
from fpn_jax.metrics import average_precision, sums, voc
from fpn_jax.ops import boxes as box_ops
from fpn_jax.ops import fcos, suppression
from fpn_jax.tasks import inspection
from fpn_jax.tasks.base import (
    Answer,
    Batch,
    Inspection,
    Predictions,
    Rows,
    Task,
)

ALPHA, GAMMA = 0.25, 2.0
"""Weight of the objects and exponent of the focal loss (arXiv 1708.02002)."""

IMAGES_AT_A_TIME = 64
"""Images whose boxes a check compares with each other and with all cells at once."""

CellOffset = Mapping[int, tuple[float, float]]
"""Level → y and x of the centre of the first cell, in pixels."""


class Candidates(NamedTuple):
    """Boxes of one level before suppression.

    Attributes:
      boxes: float32 `[B, N, 4]`, in pixels of the network's input.
      scores: float32 `[B, N, K]`, of each class, in [0, 1].
    """

    boxes: jax.Array
    scores: jax.Array


class Truth(NamedTuple):
    """The true boxes of a batch.

    Attributes:
      boxes: float32 `[B, M, 4]`.
      labels: int32 `[B, M]`, 0 or more.
      valid: bool `[B, M]`: to be found. Padding is not, nor is a crowd.
      ignored: bool `[B, M]`: a crowd, or of an unknown class; what lies inside counts
        in no loss.
    """

    boxes: jax.Array
    labels: jax.Array
    valid: jax.Array
    ignored: jax.Array

    @classmethod
    def of(cls, batch: Batch) -> "Truth":
        """Returns the true boxes; padding has no area."""
        boxes, labels = batch["boxes"].astype(jnp.float32), batch["box_labels"]
        there = box_ops.area(boxes) > 0
        counted = (labels >= 0) & (batch["box_crowd"] == 0)
        whole = jnp.array([0.0, 0.0, 1.0, 1.0])
        # Whatever padding holds, NaN too, is replaced before it is computed with.
        boxes = jnp.where(there[..., None], boxes, whole)
        return cls(boxes, jnp.maximum(labels, 0), there & counted, there & ~counted)


@dataclasses.dataclass(frozen=True)
class Detection(Task, abc.ABC):
    """Boxes of any number of objects; a subclass has the losses and the candidates.

    Of every level, the `candidates` highest scores of boxes and classes are taken;
    boxes that overlap a better one are suppressed, over all levels together.

    Attributes:
      num_classes: Number of classes `K`, 1 or more.
      cell_offset: Level → y and x of the centre of the first cell, in pixels; coarser
        levels have those of the coarsest one. None is the middle of the cells.
      offset: Place of the first cell as a share of the stride, in [0, 1): 0.5 is the
        middle, 0 is torchvision's; None follows the backbone.
      score_threshold: Least score of a detection that counts for average precision,
        in [0, 1].
      shown_threshold: Least score of a detection that is reported and drawn, from
        `score_threshold` to 1.
      candidates: Most candidates of a level, 1 or more.
      max_detections: Most detections of an image, 1 or more.
      iou_threshold: Boxes with a greater IoU are suppressed, in [0, 1].
      suppression: One of `fpn_jax.ops.suppression.METHODS`.
      by_class: Whether only boxes of one class suppress each other. By default, all
        do, because an animal is either a cat or a dog.

    Raises:
      InputError: A number is out of range, or a name is unknown.
    """

    num_classes: int
    cell_offset: CellOffset | None = None
    offset: float | None = None
    score_threshold: float = 0.05
    shown_threshold: float = 0.5
    candidates: int = 1000
    max_detections: int = 100
    iou_threshold: float = 0.6
    suppression: str = "hard"
    by_class: bool = False

    kind: ClassVar[str] = "boxes"
    monitor: ClassVar[str] = "ap"
    needs: ClassVar[frozenset[str]] = frozenset({"boxes", "box_labels", "box_crowd"})
    framing: ClassVar[str] = "letterbox"
    places: ClassVar[bool] = True
    inspects: ClassVar[bool] = True
    definitions: ClassVar[Mapping[str, str]] = {
        "loss": "mean over the images of the sum of the losses",
        "ap": "COCO's average precision: mean over the classes and the IoUs 0.50, 0.55 "
        "… 0.95; −1 where there is no true box",
        "ap50": "average precision at IoU 0.50",
        "ap75": "average precision at IoU 0.75",
        "voc_ap": "average precision of PASCAL VOC at IoU 0.50: area under the "
        "precision over recall, mean over the classes",
        "voc2007_ap": "the form of 2007: mean precision at 11 recalls",
        "class_ap": "AP of each class",
        "class_ap50": "AP at IoU 0.50 of each class",
        "ap_small": "AP of boxes below 32² pixels of the network's input",
        "ap_medium": "AP of boxes from 32² to below 96² pixels",
        "ap_large": "AP of boxes of 96² pixels and more",
        "ar1": "average recall with one box an image",
        "ar10": "average recall with ten boxes an image",
        "ar100": "average recall with a hundred boxes an image",
        "ar_small": "average recall of boxes below 32² pixels",
        "ar_medium": "average recall of boxes from 32² to below 96² pixels",
        "ar_large": "average recall of boxes of 96² pixels and more",
    }

    def __post_init__(self):
        for name in ("num_classes", "candidates", "max_detections"):
            errors.at_least(f"task.{name}", getattr(self, name), 1, whole=True)
        for name in ("score_threshold", "iou_threshold"):
            errors.within(f"task.{name}", getattr(self, name), 0, 1)
        low = self.score_threshold
        errors.within("task.shown_threshold", self.shown_threshold, low, 1)
        errors.one_of("task.suppression", self.suppression, suppression.METHODS)
        if self.offset is not None:
            errors.within("task.offset", self.offset, 0, 1, open_high=True)

    def head_arguments(self) -> dict[str, Any]:
        """Returns `num_classes`."""
        return {"num_classes": self.num_classes}

    @abc.abstractmethod
    def proposed(
        self, predictions: Predictions, image_size: tuple[int, int]
    ) -> dict[int, Candidates]:
        """Returns level → its boxes and their scores.

        Args:
          predictions: Outputs of the head.
          image_size: Height and width of the network's input, in pixels.
        """

    def first_cell(self, level: int) -> tuple[float, float]:
        """Returns y and x of the centre of the first cell of a level, in pixels.

        Args:
          level: A level of the pyramid that the head reads.
        """
        share = 0.5 if self.offset is None else self.offset
        if self.offset is not None or not self.cell_offset:
            return share * 2**level, share * 2**level
        return self.cell_offset[min(level, max(self.cell_offset))]

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, sums.Metric]:
        """Returns `loss`; `summarize` returns the other metrics."""
        loss = sum(self.losses(predictions, batch).values())
        return {"loss": sums.Mean.of(loss, batch["weight"])}

    def decode(self, predictions: Predictions, image_size: tuple[int, int]) -> Answer:
        """Returns the detections of every image, the best first.

        Returns:
          `boxes` float32 `[B, D, 4]` in pixels, clipped to the image, `box_scores`
          float32 `[B, D]`, `box_labels` int32 `[B, D]`, and `box_shown` bool `[B, D]`:
          the score is at least `shown_threshold`; for `D` of `max_detections`. Where
          there are fewer, the label is −1 and the score 0.
        """
        parts = [
            self._best(found, image_size)
            for found in self.proposed(predictions, image_size).values()
        ]
        boxes, scores, labels = (
            jnp.concatenate(part, axis=1) for part in zip(*parts, strict=True)
        )
        kept = suppression.suppress(
            boxes,
            scores,
            labels if self.by_class else None,
            max_boxes=self.max_detections,
            iou_threshold=self.iou_threshold,
            method=self.suppression,
            least_score=self.score_threshold,
        )
        there, index = kept.index >= 0, jnp.maximum(kept.index, 0)
        boxes = jnp.take_along_axis(boxes, index[..., None], axis=1)
        labels = jnp.take_along_axis(labels, index, axis=1)
        return {
            "boxes": jnp.where(there[..., None], boxes, 0),
            "box_scores": kept.score,
            "box_labels": jnp.where(there, labels, -1),
            "box_shown": there & (kept.score >= self.shown_threshold),
        }

    def _best(
        self, found: Candidates, image_size: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns boxes, scores and labels of the best pairs of a box and a class."""
        scores = found.scores.astype(jnp.float32)
        flat = scores.reshape(scores.shape[0], -1)
        # `top_k` puts NaN first.
        usable = flat >= self.score_threshold
        flat = jnp.where(usable, flat, -jnp.inf)
        best, place = jax.lax.top_k(flat, min(self.candidates, flat.shape[1]))
        number, label = jnp.divmod(place, self.num_classes)
        boxes = jnp.take_along_axis(found.boxes, number[..., None], axis=1)
        boxes = box_ops.clip(boxes.astype(jnp.float32), image_size)
        return boxes, best, label.astype(jnp.int32)

    def keep(self, answer: Answer, batch: Batch) -> Rows:
        """Returns the detections and the true boxes of every example."""
        return {
            **answer,
            "true_boxes": batch["boxes"],
            "true_labels": batch["box_labels"],
            "true_crowd": batch["box_crowd"],
        }

    def anchor_shapes(self, predictions: Predictions) -> np.ndarray | None:
        """Returns width and height of all anchors, `[A, 2]`; None where there is none.

        Args:
          predictions: Outputs of the head, or their shapes.
        """
        return None

    def inspect(
        self, rows: Mapping[str, np.ndarray], predictions: Predictions
    ) -> Inspection:
        """Returns how well anchors fit the boxes, and AP of the truth as prediction."""
        truth = rows["boxes"], rows["box_labels"], rows["box_crowd"]
        lines, passed = inspection.truth_as_prediction(*truth, self.num_classes)
        shapes = self.anchor_shapes(predictions)
        if shapes is not None:
            learned = rows["boxes"][np.asarray(Truth.of(rows).valid)]
            lines = (*lines, *inspection.fit_of_anchors(learned, shapes))
        return Inspection(lines, passed)

    def summarize(self, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Returns the metrics of COCO, both forms of VOC's, and the AP of every class.

        Raises:
          InputError: pycocotools is not installed.
        """
        given = (
            average_precision.Boxes(rows["boxes"], rows["box_labels"]),
            rows["box_scores"],
            average_precision.Boxes(rows["true_boxes"], rows["true_labels"]),
            rows["true_crowd"],
            self.num_classes,
        )
        coco = average_precision.average_precision(*given)
        forms = voc.average_precision(*given)
        of_classes = {"class_ap": coco.class_ap, "class_ap50": coco.class_ap50}
        return {
            **coco.summary,
            "voc_ap": voc.mean(forms.area),
            "voc2007_ap": voc.mean(forms.eleven),
            **{name: values.tolist() for name, values in of_classes.items()},
        }


def check_weight(name: str, weight: float) -> None:
    """Refuses a weight of a loss that is negative or not finite.

    Args:
      name: Key of the config.
      weight: The value that was given.

    Raises:
      InputError: The weight is out of range.
    """
    errors.within(name, weight, 0, math.inf, open_high=True)


def truths(rows: Mapping[str, np.ndarray]) -> Iterator[Truth]:
    """Yields the true boxes of a split, of `IMAGES_AT_A_TIME` images.

    Args:
      rows: The boxes of every record, and the fields of their values, padded.
    """
    for start in range(0, len(rows["boxes"]), IMAGES_AT_A_TIME):
        part = slice(start, start + IMAGES_AT_A_TIME)
        yield Truth.of({field: values[part] for field, values in rows.items()})


def joined(levels: Mapping[int, jax.Array], stop: int = 3) -> jax.Array:
    """Returns the predictions of all levels as one array, `[B, N, …]`.

    Args:
      levels: Level → `[B, h, w, …]`.
      stop: Axes 1 to `stop − 1` are joined: 3 for a prediction of every cell, 4 for one
        of every anchor.
    """
    parts = [jax.lax.collapse(x, 1, stop) for x in levels.values()]
    return jnp.concatenate(parts, axis=1)


def inside(places: jax.Array, boxes: jax.Array, chosen: jax.Array) -> jax.Array:
    """Returns whether each place lies in one of the chosen boxes, bool `[B, N]`.

    Args:
      places: x and y, `[N, 2]`.
      boxes: `[B, M, 4]`.
      chosen: bool `[B, M]`.
    """
    sides = fcos.distances(places, boxes[:, :, None])
    return ((sides.min(-1) > 0) & chosen[..., None]).any(1)
