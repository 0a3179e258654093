"""When the training loop does what, and which evaluation was the best."""

import dataclasses
import math
from typing import Any

import optax

from fpn_jax.errors import InputError, unknown

NONFINITE_POLICIES = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class Plan:
    """When the loop does what; all durations in optimizer steps.

    Attributes:
      total_steps: Where the run ends.
      evaluate_every_steps: Evaluates and saves after so many.
      log_every_steps: Writes a record, the exact mean since the last, after so many.
      early_stopping_evaluations: Ends after so many evaluations in a row without a
        better `monitor`; 0 never does.
      monitor: Figure of the evaluation that ranks checkpoints; larger is better.
      images_per_step: Global batch size, for the speed that is shown.
      learning_rate: Step → learning rate, for the records.
      on_nonfinite_step: `"stop"` ends the run at a step whose loss or gradient is not
        finite; `"skip"` leaves it out and counts it.
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
                    f"train.{name} is {getattr(self, name)}; it is 1 or more"
                )
        if self.on_nonfinite_step not in NONFINITE_POLICIES:
            name = self.on_nonfinite_step
            raise unknown("train.on_nonfinite_step", name, NONFINITE_POLICIES)
        if self.early_stopping_evaluations < 0:
            raise InputError(
                f"train.early_stopping_evaluations is "
                f"{self.early_stopping_evaluations}; it is 0 (never) or more"
            )


@dataclasses.dataclass
class Ranking:
    """The best evaluation so far; it travels in every checkpoint.

    Attributes:
      best: Best value of the monitored figure.
      best_step: The step that gave it.
      evaluations_since: Evaluations after it.
    """

    best: float = -math.inf
    best_step: int = 0
    evaluations_since: int = 0

    def add(self, value: float, step: int) -> None:
        """Takes in one evaluation."""
        if value > self.best:
            self.best, self.best_step, self.evaluations_since = value, step, 0
        else:
            self.evaluations_since += 1

    def as_json(self) -> dict[str, float | None]:
        """Returns what a checkpoint keeps; JSON has no infinity."""
        best = self.best if math.isfinite(self.best) else None
        return dataclasses.asdict(self) | {"best": best}

    @classmethod
    def from_json(cls, kept: dict[str, Any] | None) -> "Ranking":
        """Returns the ranking that a checkpoint kept; a new one of None."""
        if kept is None:
            return cls()
        best = -math.inf if kept["best"] is None else kept["best"]
        return cls(**(kept | {"best": best}))
