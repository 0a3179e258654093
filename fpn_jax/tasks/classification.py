"""Classification of whole images."""

import dataclasses
import math

import jax

from fpn_jax.errors import InputError
from fpn_jax.metrics import sums
from fpn_jax.ops import losses
from fpn_jax.tasks.base import Batch, Predictions


@dataclasses.dataclass(frozen=True)
class Classification:
    """One label an image, learned by cross-entropy.

    Attributes:
      num_classes: Number of classes, 2 or more.
      label_smoothing: ε of the smoothed target, in `[0, 1)`; not used in evaluation.
      class_weights: One weight a class, 0 or more; empty weighs all alike.
    """

    num_classes: int
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    monitor = "accuracy"

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"task.label_smoothing is {self.label_smoothing}; it lies in [0, 1)"
            )
        if self.class_weights and len(self.class_weights) != self.num_classes:
            raise InputError(
                f"task.class_weights has {len(self.class_weights)} weights for "
                f"{self.num_classes} classes; give one a class, or () for none"
            )
        if any(not math.isfinite(w) or w < 0 for w in self.class_weights):
            raise InputError(
                f"task.class_weights is {self.class_weights}; each is 0 or more"
            )

    def loss(self, predictions: Predictions, batch: Batch) -> jax.Array:
        """Returns the cross-entropy of every example, in nats, `[B]`."""
        return losses.cross_entropy(
            predictions["logits"],
            batch["label"],
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights or None,
        )

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, sums.Metric]:
        """Returns loss (plain cross-entropy), accuracy, ECE and confusion."""
        logits, label, weight = predictions["logits"], batch["label"], batch["weight"]
        plain = losses.cross_entropy(logits, label)
        return {
            "loss": sums.Mean.of(plain, weight),
            "accuracy": sums.Accuracy.of(logits, label, weight),
            "calibration_error": sums.Calibration.of(logits, label, weight),
            "confusion": sums.Confusion.of(logits, label, weight),
        }
