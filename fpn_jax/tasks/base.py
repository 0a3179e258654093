"""The protocol of a task."""

from typing import Protocol

import jax

from fpn_jax.metrics.sums import Metric

Predictions = dict[str, jax.Array]
Batch = dict[str, jax.Array]


class Task(Protocol):
    """What is learned; a frozen dataclass without parameters.

    Attributes:
      monitor: The metric that ranks checkpoints; larger is better.
    """

    monitor: str

    def loss(self, predictions: Predictions, batch: Batch) -> jax.Array:
        """Returns the loss of every example, `[B]`; weighs and averages nothing."""

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, Metric]:
        """Returns metrics of the batch, each example counted by `batch["weight"]`."""
