"""The training loop: steps, evaluations, checkpoints, and a clean stop.

The figures of a step are read on the host one step late, so that the device never
waits for them; before a checkpoint the loop catches up, so that no state is kept whose
loss was not finite.
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
from fpn_jax.train.training_metrics import Records, Sums, Writer


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
      SaveFailed: At the step after it is known.
      Exception: Of the batches; the state is saved first, where this process decides
        alone.
    """
    step = start_step
    records = Records(plan, writer, progress, Sums(**pending or {}))

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
            # Other processes would not come to the same save.
            if step > start_step and jax.process_count() == 1:
                records.catch_up()
                save(None)
                checkpoints.wait()
            raise
        state, metrics = step_at(step)(state, parallel.shard(batch))
        if parallel.must_wait():
            jax.block_until_ready(metrics)
        step += 1
        records.add(step, metrics)
        checkpoints.raise_if_failed()
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
