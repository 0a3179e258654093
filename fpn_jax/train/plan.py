"""When the training loop logs, evaluates and stops, and which evaluation was best."""

import dataclasses
import math
from typing import Any

import optax

from fpn_jax.errors import InputError, unknown

NONFINITE_POLICIES = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class Plan:
    """When the loop logs, evaluates, saves and stops, in optimizer steps.

    Attributes:
      total_steps: Length of the run.
      evaluate_every_steps: Steps between evaluations, each of which saves a checkpoint.
      log_every_steps: Steps between entries; an entry is the exact mean of the steps
        since the last one.
      early_stopping_evaluations: Number of evaluations in a row without a better
        `monitor` after which the run ends; 0 for no early stopping.
      monitor: Metric of the evaluation that ranks checkpoints; larger is better.
      images_per_step: Global batch size, for the displayed speed.
      learning_rate: Step → learning rate, for the entries.
      on_nonfinite_step: `"stop"` ends the run at a step whose loss or gradient is not
        finite; `"skip"` undoes the step and counts it.

    Raises:
      InputError: A value is out of range, or `on_nonfinite_step` is unknown.
    """

    total_steps: int
    evaluate_every_steps: int
    log_every_steps: int
    early_stopping_evaluations: int
    monitor: str
    images_per_step: int
    learning_rate: optax.Schedule
    on_nonfinite_step: str = "stop"

    def __post_init__(self):
        for name in ("total_steps", "evaluate_every_steps", "log_every_steps"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"train.{name} is {getattr(self, name)}; it must be 1 or more"
                )
        if self.on_nonfinite_step not in NONFINITE_POLICIES:
            name = self.on_nonfinite_step
            raise unknown("train.on_nonfinite_step", name, NONFINITE_POLICIES)
        if self.early_stopping_evaluations < 0:
            raise InputError(
                f"train.early_stopping_evaluations is "
                f"{self.early_stopping_evaluations}; it must be 0 (off) or more"
            )


@dataclasses.dataclass
class Ranking:
    """The best evaluation so far, which every checkpoint stores.

    Attributes:
      best: Best value of the monitored metric.
      best_step: Step of the best value.
      evaluations_since: Number of evaluations since `best_step`.
    """

    best: float = -math.inf
    best_step: int = 0
    evaluations_since: int = 0

    def add(self, value: float, step: int) -> None:
        """Adds one evaluation.

        Args:
          value: Value of the monitored metric.
          step: Optimizer steps taken.
        """
        if value > self.best:
            self.best, self.best_step, self.evaluations_since = value, step, 0
        else:
            self.evaluations_since += 1

    def as_json(self) -> dict[str, float | None]:
        """Returns the ranking for a checkpoint; an infinity becomes None."""
        best = self.best if math.isfinite(self.best) else None
        return dataclasses.asdict(self) | {"best": best}

    @classmethod
    def from_json(cls, kept: dict[str, Any] | None) -> "Ranking":
        """Returns the ranking that a checkpoint stores; a new ranking for None.

        Args:
          kept: The output of `as_json`, or None.
        """
        if kept is None:
            return cls()
        best = -math.inf if kept["best"] is None else kept["best"]
        return cls(**(kept | {"best": best}))
