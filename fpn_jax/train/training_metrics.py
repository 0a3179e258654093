"""Metrics of the training: read one step late, and written as exact means."""

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
"""Number of steps over which the displayed speed is averaged."""

MAX_SKIPPED_IN_A_ROW = 10
"""Number of non-finite steps in a row after which a run ends."""


class Writer(Protocol):
    """Writes entries of metrics."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes one entry.

        Args:
          step: Optimizer steps taken.
          scalars: Name, such as `"train/loss"`, → number.
        """

    def flush(self) -> None:
        """Writes all entries to the disk."""


class NonFiniteLoss(RunError):
    """The loss or the gradient of a step is infinite or not a number."""


@dataclasses.dataclass
class Sums:
    """The sums of an unfinished entry.

    Attributes:
      loss: Weighted sum of the loss over all examples.
      weight: Sum of the weights of the examples.
      gradient_norm: Sum of the gradient norms of the steps.
      steps: Number of finite steps.
      skipped: Number of non-finite steps, which are in no other sum.
      losses: Weighted sum of each loss, if the task has several.
    """

    loss: float = 0.0
    weight: float = 0.0
    gradient_norm: float = 0.0
    steps: int = 0
    skipped: int = 0
    losses: dict[str, float] = dataclasses.field(default_factory=dict)


class Entries:
    """Reads the metrics of each step one step late, and writes their exact means.

    Args:
      plan: When entries are written.
      writer: Writes the entries.
      progress: Shows the entries to the user.
      sums: Sums of the unfinished entry, from the checkpoint.
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
        # End times of the latest steps. A single difference is no good estimate of the
        # speed, because steps are dispatched before they end.
        self._ends = collections.deque([time.monotonic()], maxlen=RATE_STEPS + 1)

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        """Adds the metrics of the dispatched step, and reads those of the step before.

        Args:
          step: Number of the dispatched step.
          metrics: Its metrics, as arrays that may not be computed yet.

        Raises:
          NonFiniteLoss: The loss or gradient of the step before is not finite.
        """
        self.catch_up()
        if self._is_written(step):
            # Dispatch now; reading it later would block on the next step.
            rate = self._plan.learning_rate(step - 1)
            metrics = metrics | {"learning_rate": rate}
        self._pending = step, metrics

    def _is_written(self, step: int) -> bool:
        every, total = self._plan.log_every_steps, self._plan.total_steps
        return step % every == 0 or step == total

    def catch_up(self) -> None:
        """Reads the metrics of the last step.

        Raises:
          NonFiniteLoss: The loss or gradient is not finite, and either the plan says to
            stop, or too many steps in a row were skipped. The text names the step.
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
            for name, each in metrics["losses"].items():
                before = self._sums.losses.get(name, 0.0)
                self._sums.losses[name] = before + float(each.total)
        else:
            self._skip(f"step {step}: the loss is {loss}, the gradient norm is {norm}")
        self._ends.append(time.monotonic())
        if self._is_written(step):
            self._write(step, float(metrics["learning_rate"]))

    def _skip(self, what: str) -> None:
        if self._plan.on_nonfinite_step == "stop":
            raise NonFiniteLoss(what)
        self._sums.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteLoss(
                f"{what}, after {MAX_SKIPPED_IN_A_ROW - 1} skipped steps in a row"
            )
        self._progress.say(f"{what}: skipped")

    def _write(self, step: int, learning_rate: float) -> None:
        sums, ends = self._sums, self._ends
        loss = sums.loss / sums.weight if sums.steps else math.nan
        norm = sums.gradient_norm / sums.steps if sums.steps else math.nan
        seconds_per_step = max(ends[-1] - ends[0], 1e-9) / (len(ends) - 1)
        rate = self._plan.images_per_step / seconds_per_step
        each = {f"train/{k}": total / sums.weight for k, total in sums.losses.items()}
        self._writer.write(
            step,
            {
                "train/loss": loss,
                **each,
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
        """Returns the sums of the unfinished entry, for a checkpoint."""
        return dataclasses.asdict(self._sums)

    def exclude(self, seconds: float) -> None:
        """Excludes the time of an evaluation from the displayed speed.

        Args:
          seconds: Duration of the evaluation.
        """
        self._ends = collections.deque(
            (end + seconds for end in self._ends), maxlen=self._ends.maxlen
        )
