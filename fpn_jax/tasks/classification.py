"""Image classification."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fpn_jax.errors import InputError
from fpn_jax.metrics import sums
from fpn_jax.ops import losses
from fpn_jax.tasks.base import Answer, Batch, Predictions, Rows, Task


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Classification with one label per image, trained with cross-entropy.

    Attributes:
      num_classes: Number of classes, 2 or more.
      label_smoothing: ε of the smoothed target, in `[0, 1)`; not used in evaluation.
      class_weights: One weight per class, 0 or more and not all 0; `()` means equal
        weights. The loss of an example is scaled by the weight of its label, also with
        label smoothing; see `fpn_jax.ops.losses.cross_entropy`.

    Raises:
      InputError: `label_smoothing` or `class_weights` is out of range, or the number
        of weights differs from the number of classes.
    """

    num_classes: int
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    kind: ClassVar[str] = "classes"
    monitor: ClassVar[str] = "accuracy"
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    reads: ClassVar[frozenset[str]] = frozenset({"logits"})
    mixable: ClassVar[bool] = True
    exports: ClassVar[tuple[str, ...]] = ("probabilities",)
    explains: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"task.label_smoothing is {self.label_smoothing}; it must be in [0, 1)"
            )
        if self.class_weights and len(self.class_weights) != self.num_classes:
            raise InputError(
                f"task.class_weights has {len(self.class_weights)} weights for "
                f"{self.num_classes} classes; give one weight per class, or ()"
            )
        if any(not 0 <= weight < float("inf") for weight in self.class_weights):
            raise InputError(
                f"task.class_weights is {self.class_weights}; every weight must be 0 "
                "or more, and finite"
            )
        if self.class_weights and not any(self.class_weights):
            raise InputError(
                f"task.class_weights is {self.class_weights}: with only zeros nothing "
                "is learned; give at least one weight above 0, or () for equal weights"
            )

    def head_arguments(self) -> dict[str, Any]:
        """Returns `num_classes`."""
        return {"num_classes": self.num_classes}

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns the cross-entropy of every example, in nats."""
        cross_entropy = losses.cross_entropy(
            predictions["logits"],
            batch["label"],
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights or None,
        )
        return {"cross_entropy": cross_entropy}

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, sums.Metric]:
        """Returns cross-entropy, accuracy, calibration error and confusion matrix.

        An example whose probabilities are not finite is wrong, and is in neither the
        calibration error nor the confusion matrix.
        """
        logits, label, weight = predictions["logits"], batch["label"], batch["weight"]
        predicted = jnp.argmax(logits, axis=-1)
        probabilities = _probabilities(logits)
        finite = jnp.isfinite(probabilities).all(axis=-1)
        confidence = jnp.max(probabilities, axis=-1)
        plain = losses.cross_entropy(logits, label)
        correct = (predicted == label) & finite
        counted = jnp.where(finite, weight, 0)
        return {
            "loss": sums.Mean.of(plain, weight),
            "accuracy": sums.Accuracy.of(correct, True, weight),
            "calibration_error": sums.Calibration.of(confidence, correct, counted),
            "confusion": sums.Confusion.of(predicted, label, counted, logits.shape[-1]),
        }

    def decode(self, predictions: Predictions, image_size: tuple[int, int]) -> Answer:
        """Returns `label` int `[B]` and `probabilities` float32 `[B, num_classes]`."""
        logits = predictions["logits"]
        return {
            "label": jnp.argmax(logits, axis=-1).astype(jnp.int32),
            "probabilities": _probabilities(logits),
        }

    def keep(self, answer: Answer, batch: Batch) -> Rows:
        """Returns `label`, `predicted` and `probabilities` of every example."""
        return {
            "label": batch["label"],
            "predicted": answer["label"],
            "probabilities": answer["probabilities"],
        }

    def evidence(self, predictions: Predictions, target: jax.Array) -> jax.Array:
        """Returns the logit of the target class, `[B]`."""
        logits = predictions["logits"]
        return jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]


def _probabilities(logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
