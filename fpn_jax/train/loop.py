"""The training loop: steps, evaluations, checkpoints, and a clean stop.

The host reads the metrics of a step one step late, so that the device never waits for
the host. Before a checkpoint the loop reads the metrics of the last step, so that a
state with a non-finite loss is never saved.
"""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fpn_jax.train import parallel
from fpn_jax.train.checkpoints import Checkpoints
from fpn_jax.train.plan import Plan, Ranking
from fpn_jax.train.progress import ProgressBar
from fpn_jax.train.state import TrainState
from fpn_jax.train.training_metrics import Entries, Sums, Writer


class StopRequest:
    """A flag that SIGTERM and Ctrl-C set, and that the loop reads after every step.

    With several processes, JAX's own SIGTERM handler stays installed, because it makes
    all processes stop at the same step; Ctrl-C sends SIGTERM.

    Attributes:
      asked: Whether this process was asked to stop; used only in a single process.
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
        print(
            "stopping after this step and saving a checkpoint …",
            file=sys.stderr,
            flush=True,
        )
        # A second signal ends the process at once.
        signal.signal(number, signal.SIG_DFL)

    def after(self, step: int) -> bool:
        """Returns whether to stop after this step, the same in all processes.

        Args:
          step: Optimizer steps taken.
        """
        if jax.process_count() > 1:
            return self._checkpoints.reached_preemption(step)
        return self.asked


StepFn = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]
"""State and batch → the next state, and the metrics of the step."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """The training loop of a run.

    Attributes:
      step_at: Number of steps taken → the next mapped train step. The step can change
        during a run, because fine-tuning changes the parameters that train.
      evaluate: State → metrics of the validation split, which include `plan.monitor`.
      plan: When to log, evaluate and stop.
      ranking: The best evaluation so far; changed in place.
      checkpoints: Saves the states.
      meta: JSON to save with every state.
      writer: Writes the entries.
      progress: Shows the progress to the user.
      stop: Tells after every step whether to stop.
    """

    step_at: Callable[[int], StepFn]
    evaluate: Callable[[TrainState], dict[str, float]]
    plan: Plan
    ranking: Ranking
    checkpoints: Checkpoints
    meta: dict[str, Any]
    writer: Writer
    progress: ProgressBar
    stop: StopRequest

    def train(
        self,
        state: TrainState,
        start_step: int,
        batches: Iterator[dict[str, np.ndarray]],
        pending: dict[str, Any] | None = None,
    ) -> tuple[TrainState, str]:
        """Trains from a step to the end of the plan.

        Args:
          state: The replicated state at `start_step`; its buffers are donated.
          start_step: Optimizer steps taken. `state.step` has the same value, but
            reading it would wait for the device.
          batches: Training batches from `start_step` on.
          pending: Sums of the unfinished entry, from the checkpoint.

        Returns:
          The last state, and the reason for the end: `"finished"`, `"stopped"` (a
          signal) or `"early"` (early stopping).

        Raises:
          NonFiniteLoss: A loss or gradient is not finite. The last checkpoint is good.
          SaveFailed: A save failed. It is raised after the step in which it is noticed.
          Exception: The batches failed. A single process saves the state first.
        """
        step, plan = start_step, self.plan
        entries = Entries(plan, self.writer, self.progress, Sums(**pending or {}))
        if step < plan.total_steps and self._patience_is_over():
            return state, "early"
        while step < plan.total_steps:
            try:
                batch = next(batches)
            except Exception:
                # With several processes, the other processes would not reach this save.
                if step > start_step and jax.process_count() == 1:
                    entries.catch_up()
                    self._save(state, entries, None)
                    self.checkpoints.wait()
                raise
            state, metrics = self.step_at(step)(state, parallel.shard(batch))
            if parallel.must_wait():
                jax.block_until_ready(metrics)
            step += 1
            entries.add(step, metrics)
            self.checkpoints.raise_if_failed()
            ended = step == plan.total_steps
            if ended or step % plan.evaluate_every_steps == 0:
                self._evaluate(state, step, entries)
                if self._patience_is_over() and not ended:
                    return state, "early"
            if not ended and self.stop.after(step):
                entries.catch_up()
                self._save(state, entries, None)
                return state, "stopped"
        return state, "finished"

    def _evaluate(self, state: TrainState, step: int, entries: Entries) -> None:
        entries.catch_up()
        began = time.monotonic()
        metrics = self.evaluate(state)
        self.ranking.add(metrics[self.plan.monitor], step)
        self.writer.write(step, {f"validate/{k}": v for k, v in metrics.items()})
        shown = "  ".join(f"{k} {v:.4f}" for k, v in metrics.items())
        self.progress.say(f"step {step}/{self.plan.total_steps}  validation: {shown}")
        self._save(state, entries, metrics)
        entries.exclude(time.monotonic() - began)

    def _save(
        self, state: TrainState, entries: Entries, metrics: dict[str, float] | None
    ) -> None:
        position = {"ranking": self.ranking.as_json(), "pending": entries.as_json()}
        # Write the entries first: a resumed run drops entries after its step, but
        # cannot restore missing entries before it.
        self.writer.flush()
        self.checkpoints.save(state, self.meta | position, metrics)

    def _patience_is_over(self) -> bool:
        patience = self.plan.early_stopping_evaluations
        return bool(patience) and self.ranking.evaluations_since >= patience
