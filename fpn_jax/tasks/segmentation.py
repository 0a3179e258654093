"""Semantic segmentation: the class of every pixel."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fpn_jax import errors
from fpn_jax.metrics import regions, sums
from fpn_jax.ops import pixel_losses
from fpn_jax.ops.pixel_losses import IGNORE
from fpn_jax.ops.upsampling import resize_bilinear
from fpn_jax.tasks.base import Answer, Batch, Predictions, Rows, Task

BOUNDARY = 0.02
"""Width of a boundary, as a share of the diagonal of the image (arXiv 2103.16562)."""


@dataclasses.dataclass(frozen=True)
class Segmentation(Task):
    """The class of every pixel; class 0 is the background.

    The head's logits are resized bilinearly to the image. A pixel of the mask whose
    value is 255 counts in no loss and in no metric.

    Attributes:
      num_mask_classes: Number of classes, 2 or more.
      loss_weights: Name of a loss of `fpn_jax.ops.pixel_losses.LOSSES` → its weight, 0
        or more; the weighted losses are added.
      auxiliary_weight: Weight of the cross-entropy of the head's `auxiliary_logits`, 0
        or more; 0 does not read them. PSPNet's is 0.4.
      align_corners: Whether the resize puts corner cells on corner pixels, instead of
        half-pixel centres.

    Raises:
      InputError: A loss is unknown, a weight is out of range, or all of them are 0.
    """

    num_mask_classes: int
    loss_weights: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"cross_entropy": 1.0}
    )
    auxiliary_weight: float = 0.0
    align_corners: bool = False

    kind: ClassVar[str] = "class_map"
    monitor: ClassVar[str] = "mean_iou"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    framing: ClassVar[str] = "letterbox"
    definitions: ClassVar[Mapping[str, str]] = {
        "loss": "mean over the images of the weighted losses",
        "pixel_accuracy": "share of the pixels with the right class",
        "mean_iou": "mean over the classes in truth or prediction of the IoU of all "
        "pixels of the split",
        "mean_dice": "the same mean of 2I / (P + T)",
        "class_iou": "IoU of each class over all pixels of the split",
        "foreground_iou": "IoU of all classes but the background as one region, over "
        "all pixels of the split",
        "foreground_iou_per_image": "mean over the images of that IoU; 1 where both "
        "are empty",
        "boundary_iou": "IoU over the split of the pixels of the foreground within 2 % "
        "of the diagonal of its outside",
    }

    def __post_init__(self):
        errors.at_least("num_mask_classes", self.num_mask_classes, 2, whole=True)
        # A mask is uint8, and its last value means that a pixel is ignored.
        errors.within("num_mask_classes", self.num_mask_classes, 2, IGNORE)
        for name, weight in self.loss_weights.items():
            errors.one_of("task.loss_weights", name, pixel_losses.LOSSES)
            key = f"task.loss_weights.{name}"
            errors.within(key, weight, 0, math.inf, open_high=True)
        if not any(self.loss_weights.values()):
            raise errors.InputError(
                f"task.loss_weights is {dict(self.loss_weights)}; give at least one "
                "weight above 0"
            )
        errors.within(
            "task.auxiliary_weight", self.auxiliary_weight, 0, math.inf, open_high=True
        )

    @property
    def reads(self) -> frozenset[str]:
        """Keys of the predictions that the task reads."""
        auxiliary = {"auxiliary_logits"} if self.auxiliary_weight else set()
        return frozenset({"mask_logits"} | auxiliary)

    def head_arguments(self) -> dict[str, Any]:
        """Returns `num_mask_classes`."""
        return {"num_mask_classes": self.num_mask_classes}

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns every weighted loss of every example, and `auxiliary` if it is read.

        Each loss is a mean over the pixels of its image, so images count equally.
        """
        mask = batch["mask"]
        logits = self._resized(predictions["mask_logits"], mask.shape[1:3])
        found = self._weighted(logits, mask)
        if self.auxiliary_weight:
            finer = self._resized(predictions["auxiliary_logits"], mask.shape[1:3])
            auxiliary = pixel_losses.cross_entropy(finer, mask)
            found["auxiliary"] = self.auxiliary_weight * auxiliary
        return found

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, sums.Metric]:
        """Returns the metrics of `definitions`."""
        mask, weight = batch["mask"], batch["weight"]
        logits = self._resized(predictions["mask_logits"], mask.shape[1:3])
        loss = sum(self._weighted(logits, mask).values())
        predicted = _classes(logits)
        counted = mask != IGNORE
        of_class = regions.counts(predicted, mask, self.num_mask_classes, counted)
        foreground = _foreground(predicted, mask, counted)
        pixels = weight[:, None, None] * counted
        return {
            "loss": sums.Mean.of(loss, weight),
            "pixel_accuracy": sums.Accuracy.of(predicted, mask, pixels),
            "mean_iou": regions.MeanIoU.of(of_class, weight),
            "mean_dice": regions.MeanDice.of(of_class, weight),
            "class_iou": regions.Regions.of(of_class, weight),
            "foreground_iou": regions.RegionIoU.of(foreground, weight),
            "foreground_iou_per_image": sums.Mean.of(
                regions.overlap(**foreground)[:, 0], weight
            ),
            "boundary_iou": regions.RegionIoU.of(
                _boundary(predicted, mask, counted), weight
            ),
        }

    def decode(self, predictions: Predictions, image_size: tuple[int, int]) -> Answer:
        """Returns `mask` uint8 `[B, H, W]` and `mask_probabilities` `[B, H, W, C]`."""
        logits = self._resized(predictions["mask_logits"], image_size)
        return {
            "mask": _classes(logits),
            "mask_probabilities": jax.nn.softmax(logits, axis=-1),
        }

    def keep(self, answer: Answer, batch: Batch) -> Rows:
        """Returns the counts of the pixels of every class, and of the foreground."""
        mask = batch["mask"]
        counted = mask != IGNORE
        of_class = regions.counts(answer["mask"], mask, self.num_mask_classes, counted)
        foreground = _foreground(answer["mask"], mask, counted)
        return of_class | {"foreground_iou": regions.overlap(**foreground)[:, 0]}

    def _weighted(self, logits: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        """Returns every loss of the head's logits, times its weight."""
        return {
            name: weight * pixel_losses.LOSSES[name](logits, mask)
            for name, weight in self.loss_weights.items()
            if weight
        }

    def _resized(self, logits: jax.Array, size: tuple[int, int]) -> jax.Array:
        logits = logits.astype(jnp.float32)
        return resize_bilinear(logits, size, align_corners=self.align_corners)


def _classes(logits: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)


def _foreground(
    predicted: jax.Array, mask: jax.Array, counted: jax.Array
) -> dict[str, jax.Array]:
    """Returns the counts of the pixels that are no background, `[B, 1]` each."""
    found, there = (predicted > 0) & counted, (mask > 0) & counted
    return _of_region(found, there)


def _boundary(
    predicted: jax.Array, mask: jax.Array, counted: jax.Array
) -> dict[str, jax.Array]:
    """Returns the counts of the pixels at the boundary of the foreground, `[B, 1]`."""
    width = max(1, round(BOUNDARY * math.hypot(*mask.shape[1:3])))
    found, there = (predicted > 0) & counted, (mask > 0) & counted
    return _of_region(regions.boundary(found, width), regions.boundary(there, width))


def _of_region(found: jax.Array, there: jax.Array) -> dict[str, jax.Array]:
    def count(region):
        return region.sum((1, 2), dtype=jnp.int32)[:, None]

    return {
        "intersection": count(found & there),
        "predicted": count(found),
        "truth": count(there),
    }
