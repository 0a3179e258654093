"""The training loop: steps, evaluations, checkpoints, and a clean stop.

The host reads a step's metrics one step late, so that the device never waits for it.
Before a checkpoint the loop reads the last ones, so that no state is saved whose loss
was not finite.
"""

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
    """SIGTERM and Ctrl-C as a flag that the loop reads after every step.

    With several processes, JAX's own SIGTERM handler lets all agree on the step at
    which they stop, so it stays installed; Ctrl-C is passed on to it.

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
        # A second signal ends the process as usual.
        signal.signal(number, signal.SIG_DFL)

    def after(self, step: int) -> bool:
        """Returns whether to stop after this step, the same in all processes."""
        if jax.process_count() > 1:
            return self._checkpoints.reached_preemption(step)
        return self.asked


StepFn = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]
"""State and batch → the next state, and the step's metrics."""


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
      state: Replicated; its buffers are donated.
      start_step: The state's own step, known here without waiting for the device.
      step_at: Number of steps taken → the mapped train step that comes next; the
        parameters that train may change during a run.
      batches: Training batches from `start_step` on.
      evaluate: State → metrics of the validation split, `plan.monitor` included.
      plan: When to log, evaluate and stop.
      ranking: The best evaluation so far; changed in place.
      checkpoints: Where states are saved.
      meta: JSON that is saved with each.
      writer: Where entries are written.
      progress: What the user sees.
      stop: Asked after every step.
      pending: Sums of the unfinished entry that a checkpoint stored.

    Returns:
      The last state, and why it is the last: `"finished"`, `"stopped"` (a signal) or
      `"early"` (no better evaluation for long enough).

    Raises:
      NonFiniteLoss: A loss or gradient is not finite; the last checkpoint is good.
      SaveFailed: A save has failed; raised after the step at which that is known.
      Exception: The batches failed; a single process saves the state first.
    """
    step = start_step
    entries = Entries(plan, writer, progress, Sums(**pending or {}))

    def save(metrics: dict[str, float] | None) -> None:
        position = {"ranking": ranking.as_json(), "pending": entries.as_json()}
        # Entries first: a resumed run can drop entries after its step, but cannot
        # write those that are missing before it.
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
            # With several processes the others would not reach this save.
            if step > start_step and jax.process_count() == 1:
                entries.catch_up()
                save(None)
                checkpoints.wait()
            raise
        state, metrics = step_at(step)(state, parallel.shard(batch))
        if parallel.must_wait():
            jax.block_until_ready(metrics)
        step += 1
        entries.add(step, metrics)
        checkpoints.raise_if_failed()
        ended = step == plan.total_steps
        if ended or step % plan.evaluate_every_steps == 0:
            entries.catch_up()
            began = time.monotonic()
            evaluated = evaluate(state)
            ranking.add(evaluated[plan.monitor], step)
            writer.write(step, {f"validate/{k}": v for k, v in evaluated.items()})
            shown = "  ".join(f"{k} {v:.4f}" for k, v in evaluated.items())
            progress.say(f"step {step}/{plan.total_steps}  validation: {shown}")
            save(evaluated)
            entries.exclude(time.monotonic() - began)
            if patience_is_over() and not ended:
                return state, "early"
        if not ended and stop.after(step):
            entries.catch_up()
            save(None)
            return state, "stopped"
    return state, "finished"
