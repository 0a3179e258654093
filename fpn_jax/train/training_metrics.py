"""The figures of steps: read one step late, written as exact means."""

import collections
import dataclasses
import math
import time
from typing import Any, Protocol

from fpn_jax.errors import RunError
from fpn_jax.metrics.sums import Mean
from fpn_jax.train.plan import Plan
from fpn_jax.train.progress import ProgressBar

RATE_STEPS = 50
"""The speed that is shown is that of so many steps."""

MAX_SKIPPED_IN_A_ROW = 10
"""So many steps that are not finite, one after the other, will not mend themselves."""


class Writer(Protocol):
    """Where records go."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes one record."""

    def flush(self) -> None:
        """Brings all records to the disk."""


class NonFiniteLoss(RunError):
    """The loss or the gradient of a step is infinite or not a number."""


@dataclasses.dataclass
class Sums:
    """What a record that is not complete yet has gathered.

    Attributes:
      loss: Sum of the losses of all examples.
      weight: Sum of their weights.
      gradient_norm: Sum over the steps.
      steps: How many counted.
      skipped: How many were left out.
    """

    loss: float = 0.0
    weight: float = 0.0
    gradient_norm: float = 0.0
    steps: int = 0
    skipped: int = 0


class Records:
    """Reads each step's figures one step late; writes their exact means.

    Args:
      plan: When a record is written.
      writer: Where it goes.
      progress: What the user sees.
      sums: Of a record that a checkpoint found begun.
    """

    def __init__(
        self,
        plan: Plan,
        writer: Writer,
        progress: ProgressBar,
        sums: Sums,
    ):
        self._plan, self._writer, self._progress = plan, writer, progress
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._sums = sums
        self._skipped_in_a_row = 0
        # Ends of the latest steps: one alone says little, since steps are sent off
        # before they end.
        self._ends = collections.deque([time.monotonic()], maxlen=RATE_STEPS + 1)

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        """Takes the figures of the step just sent off, and reads the one before."""
        self.catch_up()
        if self._is_written(step):
            # Sent off now: asked for later, it would wait for the step after this one.
            rate = self._plan.learning_rate(step - 1)
            metrics = metrics | {"learning_rate": rate}
        self._pending = step, metrics

    def _is_written(self, step: int) -> bool:
        every, total = self._plan.log_every_steps, self._plan.total_steps
        return step % every == 0 or step == total

    def catch_up(self) -> None:
        """Reads what is not read yet.

        Raises:
          NonFiniteLoss: Names the step.
        """
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        mean: Mean = metrics["loss"].on_host()
        loss, norm = mean.compute(), float(metrics["gradient_norm"])
        if math.isfinite(loss) and math.isfinite(norm):
            self._skipped_in_a_row = 0
            self._sums.loss += float(mean.total)
            self._sums.weight += float(mean.weight)
            self._sums.gradient_norm += norm
            self._sums.steps += 1
        else:
            self._skip(f"step {step}: the loss is {loss}, the gradient's norm {norm}")
        self._ends.append(time.monotonic())
        if self._is_written(step):
            self._write(step, float(metrics["learning_rate"]))

    def _skip(self, what: str) -> None:
        if self._plan.on_nonfinite_step == "stop":
            raise NonFiniteLoss(what)
        self._sums.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteLoss(f"{what}, as in the {MAX_SKIPPED_IN_A_ROW - 1} before")
        self._progress.say(f"{what}: left out")

    def _write(self, step: int, learning_rate: float) -> None:
        sums, ends = self._sums, self._ends
        loss = sums.loss / sums.weight if sums.steps else math.nan
        norm = sums.gradient_norm / sums.steps if sums.steps else math.nan
        seconds_per_step = max(ends[-1] - ends[0], 1e-9) / (len(ends) - 1)
        rate = self._plan.images_per_step / seconds_per_step
        self._writer.write(
            step,
            {
                "train/loss": loss,
                "train/gradient_norm": norm,
                "train/learning_rate": learning_rate,
                "train/images_per_second": rate,
            }
            | ({"train/skipped_steps": sums.skipped} if sums.skipped else {}),
        )
        self._progress.update(
            step,
            loss=loss,
            images_per_second=rate,
            seconds_left=seconds_per_step * (self._plan.total_steps - step),
        )
        self._sums = Sums()

    def as_json(self) -> dict[str, float]:
        """Returns the sums of the record that is not written yet."""
        return dataclasses.asdict(self._sums)

    def leave_out(self, seconds: float) -> None:
        """Does not count an evaluation as training time."""
        self._ends = collections.deque(
            (end + seconds for end in self._ends), maxlen=self._ends.maxlen
        )
