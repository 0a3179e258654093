"""The training loop: steps, records, evaluations, checkpoints, and a clean stop.

The figures of a step are read on the host one step late, so that the device never
waits for them; before a checkpoint the loop catches up, so that no state is kept whose
loss was not finite.
"""

import collections
import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
import optax

from fpn_jax.errors import InputError
from fpn_jax.metrics import Mean
from fpn_jax.train import parallel
from fpn_jax.train.checkpoints import Checkpoints
from fpn_jax.train.progress import ProgressBar
from fpn_jax.train.state import TrainState

RATE_STEPS = 50
"""The speed that is shown is that of so many steps."""


class Writer(Protocol):
    """Where records go."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes one record."""

    def flush(self) -> None:
        """Brings all records to the disk."""


class NonFiniteLoss(Exception):
    """The loss or the gradient of a step is infinite or not a number."""


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
    """

    total_steps: int
    evaluate_every_steps: int
    log_every_steps: int
    early_stopping_evaluations: int
    monitor: str
    images_per_step: int
    learning_rate: optax.Schedule

    def __post_init__(self):
        for name in ("total_steps", "evaluate_every_steps", "log_every_steps"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"train.{name} is {getattr(self, name)}; it is 1 or more"
                )
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


class StopRequest:
    """SIGTERM and Ctrl-C, turned into a question that the loop asks after every step.

    With several processes JAX's own SIGTERM handler agrees with the others on the step
    at which all stop, so it stays; Ctrl-C is passed on to it.

    Attributes:
      asked: Whether this process alone was asked to stop.
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if jax.process_count() > 1:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._pass_on)
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, *_) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def _ask(self, number: int, _) -> None:
        self.asked = True
        print("stopping after this step, and saving …", file=sys.stderr, flush=True)
        # A second one, from somebody who cannot wait, ends the process as usual.
        signal.signal(number, signal.SIG_DFL)

    def after(self, step: int) -> bool:
        """Returns whether to stop after this step; all processes say the same."""
        if jax.process_count() > 1:
            return self._checkpoints.reached_preemption(step)
        return self.asked


StepFn = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]
"""State and batch → the next state, and the step's figures."""


@dataclasses.dataclass
class _Sums:
    """What a record that is not complete yet has gathered."""

    loss: float = 0.0
    weight: float = 0.0
    gradient_norm: float = 0.0
    steps: int = 0


class _Records:
    """Reads each step's figures one step late; writes their exact means."""

    def __init__(
        self,
        plan: Plan,
        writer: Writer,
        progress: ProgressBar,
        sums: "_Sums",
    ):
        self._plan, self._writer, self._progress = plan, writer, progress
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._sums = sums
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
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteLoss(
                f"step {step}: the loss is {loss} and the gradient's norm {norm}"
            )
        self._sums.loss += float(mean.total)
        self._sums.weight += float(mean.weight)
        self._sums.gradient_norm += norm
        self._sums.steps += 1
        self._ends.append(time.monotonic())
        if self._is_written(step):
            self._write(step, float(metrics["learning_rate"]))

    def _write(self, step: int, learning_rate: float) -> None:
        sums, ends = self._sums, self._ends
        loss = sums.loss / sums.weight
        seconds_per_step = max(ends[-1] - ends[0], 1e-9) / (len(ends) - 1)
        rate = self._plan.images_per_step / seconds_per_step
        self._writer.write(
            step,
            {
                "train/loss": loss,
                "train/gradient_norm": sums.gradient_norm / sums.steps,
                "train/learning_rate": learning_rate,
                "train/images_per_second": rate,
            },
        )
        self._progress.update(
            step,
            loss=loss,
            images_per_second=rate,
            seconds_left=seconds_per_step * (self._plan.total_steps - step),
        )
        self._sums = _Sums()

    def as_json(self) -> dict[str, float]:
        """Returns the sums of the record that is not written yet."""
        return dataclasses.asdict(self._sums)

    def leave_out(self, seconds: float) -> None:
        """Does not count an evaluation as training time."""
        self._ends = collections.deque(
            (end + seconds for end in self._ends), maxlen=self._ends.maxlen
        )


def train(
    state: TrainState,
    *,
    start_step: int,
    step_at: Callable[[int], StepFn],
    batches: Iterator[dict[str, np.ndarray]],
    evaluate: Callable[[TrainState], dict[str, float]],
    plan: Plan,
    ranking: Ranking,
    checkpoints: Checkpoints,
    meta: dict[str, Any],
    writer: Writer,
    progress: ProgressBar,
    stop: StopRequest,
    pending: dict[str, float] | None = None,
) -> tuple[TrainState, str]:
    """Trains from a step to the end of the plan.

    Args:
      state: Replicated; its buffers are used up.
      start_step: The state's own step, which need not be waited for.
      step_at: Number of steps taken → the mapped train step that comes next; what
        trains may change on the way.
      batches: Begin at that step.
      evaluate: State → figures of the validate split, with `plan.monitor` among them.
      plan: When what happens.
      ranking: The best evaluation so far; changed in place.
      checkpoints: Where states go.
      meta: JSON that goes with each.
      writer: Where records go.
      progress: What the user sees.
      stop: Asked after every step.
      pending: Sums of a record that a checkpoint found begun.

    Returns:
      The last state, and why it is the last: `"finished"`, `"stopped"` (a signal) or
      `"early"` (no better evaluation for long enough).

    Raises:
      NonFiniteLoss: The last good checkpoint is kept.
    """
    step = start_step
    records = _Records(plan, writer, progress, _Sums(**pending or {}))

    def save(metrics: dict[str, float] | None) -> None:
        position = {"ranking": ranking.as_json(), "pending": records.as_json()}
        # Records first: a resumed run can drop those after its step, not make up for
        # those that are missing before it.
        writer.flush()
        checkpoints.save(state, meta | position, metrics)

    def patience_is_over() -> bool:
        patience = plan.early_stopping_evaluations
        return bool(patience) and ranking.evaluations_since >= patience

    if step < plan.total_steps and patience_is_over():
        return state, "early"

    while step < plan.total_steps:
        try:
            batch = next(batches)
        except Exception:
            # Ctrl-C in a terminal reaches the workers of the data as well.
            if not stop.asked:
                raise
            records.catch_up()
            save(None)
            return state, "stopped"
        state, metrics = step_at(step)(state, parallel.shard(batch))
        if parallel.must_wait():
            jax.block_until_ready(metrics)
        step += 1
        records.add(step, metrics)
        ended = step == plan.total_steps
        if ended or step % plan.evaluate_every_steps == 0:
            records.catch_up()
            began = time.monotonic()
            figures = evaluate(state)
            ranking.add(figures[plan.monitor], step)
            writer.write(step, {f"validate/{k}": v for k, v in figures.items()})
            shown = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
            progress.say(f"step {step}/{plan.total_steps}  validate: {shown}")
            save(figures)
            records.leave_out(time.monotonic() - began)
            if patience_is_over() and not ended:
                return state, "early"
        if not ended and stop.after(step):
            records.catch_up()
            save(None)
            return state, "stopped"
    return state, "finished"
