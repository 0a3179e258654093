import itertools
import math
import resource
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.metrics.sums import Mean
from fpn_jax.train import loop, parallel, state
from fpn_jax.train.checkpoints import Checkpoints, SaveFailed
from fpn_jax.train.plan import Plan, Ranking
from fpn_jax.train.progress import ProgressBar
from fpn_jax.train.training_metrics import NonFiniteLoss
from fpn_jax.train.writers import MetricsWriter, read

BATCH = 8


def schedule(step):
    return 1.0 / (1 + step)


def plan(total_steps, **changes):
    chosen = {
        "total_steps": total_steps,
        "evaluate_every_steps": 100,
        "log_every_steps": 1,
        "early_stopping_evaluations": 0,
        "monitor": "accuracy",
        "images_per_step": BATCH,
        "learning_rate": schedule,
    }
    return Plan(**(chosen | changes))


def first_state():
    params = {"params": {"kernel": jnp.linspace(0.0, 1.0, 8).reshape(2, 4)}}
    return state.create(lambda _: params, optax.sgd(0.1), seed=0, with_ema=False)


def batches(start=0):
    """Yields an endless stream of different batches."""
    for step in itertools.count(start):
        rng = np.random.default_rng(step)
        yield {
            "x": rng.normal(size=BATCH).astype(np.float32),
            "weight": rng.uniform(0.5, 3, BATCH).astype(np.float32),
        }


def sums_of_step(step):
    """Returns the sums that the step function computes for a step, in float64."""
    batch = next(batches(step - 1))
    return float(np.sum(batch["x"] ** 2)), float(np.sum(batch["weight"]))


def step_fn(current, batch):
    """Replaces a mapped step: changes the state by the values of the batch."""
    assert batch["x"].shape == (8, 1)
    kernel = current.params["kernel"]
    current = current.replace(
        step=current.step + 1,
        params={"kernel": kernel * 0.9 + jnp.sum(batch["x"]) * 0.1},
    )
    loss = Mean(
        total=jnp.asarray(np.sum(batch["x"] ** 2)),
        weight=jnp.asarray(np.sum(batch["weight"])),
    )
    return current, {"loss": loss, "gradient_norm": jnp.float32(2.0), "losses": {}}


class Bench:
    """A workdir, and everything that the loop needs."""

    def __init__(self, directory):
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.evaluated = []
        self.accuracy = lambda step: step / 100
        self.ranking = Ranking()
        self.batches = batches

    def run(self, of_plan, step=step_fn, start=None, meta=None):
        """Trains; returns the last state and the reason for the end."""
        meta = meta or {}
        start = parallel.replicate(first_state()) if start is None else start
        begun = int(start.step)
        self.ranking = Ranking.from_json(meta.get("ranking"))
        checkpoints = self.checkpoints()
        writer = MetricsWriter(self.directory / "metrics.jsonl", resume_step=begun)
        try:
            with loop.StopRequest(checkpoints) as stop:
                training = loop.Loop(
                    step_at=lambda _: step,
                    evaluate=self.evaluate,
                    plan=of_plan,
                    ranking=self.ranking,
                    checkpoints=checkpoints,
                    meta={"config": {"seed": 0}},
                    writer=writer,
                    progress=ProgressBar(of_plan.total_steps, shown=False),
                    stop=stop,
                )
                end, reason = training.train(
                    start, begun, self.batches(begun), meta.get("pending")
                )
        finally:
            checkpoints.close()
            writer.close()
        return end, reason

    def checkpoints(self):
        folder = self.directory / "checkpoints"
        return Checkpoints(folder, monitor="accuracy", keep_latest=2)

    def kept(self):
        checkpoints = self.checkpoints()
        steps = checkpoints.steps()
        checkpoints.close()
        return steps

    def resume(self, of_plan, step=step_fn):
        checkpoints = self.checkpoints()
        newest = checkpoints.steps()[-1]
        start = checkpoints.restore(newest, jax.eval_shape(first_state))
        meta = checkpoints.meta(newest)
        checkpoints.close()
        return self.run(of_plan, step, start, meta)

    def evaluate(self, current):
        step = int(current.step)
        self.evaluated.append(step)
        return {"accuracy": self.accuracy(step), "loss": 0.5}

    def rows(self, prefix="train/"):
        rows = read(self.directory / "metrics.jsonl")
        return [row for row in rows if any(key.startswith(prefix) for key in row)]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "run")


def at_step(number, action):
    """Returns a step function that calls `action` before one step."""

    def step(current, batch):
        if int(current.step) + 1 == number:
            action()
        return step_fn(current, batch)

    return step


def test_every_step_has_an_entry(bench):
    end, reason = bench.run(plan(7))
    assert reason == "finished"
    assert int(end.step) == 7
    rows = bench.rows()
    assert [row["step"] for row in rows] == list(range(1, 8))
    for row in rows:
        total, weight = sums_of_step(row["step"])
        assert row["train/loss"] == total / weight
        assert row["train/gradient_norm"] == 2.0
        assert row["train/learning_rate"] == schedule(row["step"] - 1)
        assert row["train/images_per_second"] > 0


def test_entries_over_several_steps_are_exact_weighted_means(bench):
    bench.run(plan(10, log_every_steps=3))
    rows = bench.rows()
    assert [row["step"] for row in rows] == [3, 6, 9, 10]
    for row, steps in zip(rows, [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10,)], strict=True):
        sums = [sums_of_step(step) for step in steps]
        expected = sum(t for t, _ in sums) / sum(w for _, w in sums)
        assert row["train/loss"] == expected


def test_evaluations_are_periodic_and_at_the_end(bench):
    bench.run(plan(10, evaluate_every_steps=4))
    assert bench.evaluated == [4, 8, 10]
    assert [
        (row["step"], row["validate/accuracy"], row["validate/loss"])
        for row in bench.rows("validate/")
    ] == [(4, 0.04, 0.5), (8, 0.08, 0.5), (10, 0.1, 0.5)]
    assert bench.kept() == [8, 10]
    assert bench.ranking == Ranking(0.1, 10, 0)


def test_a_periodic_evaluation_at_the_last_step_is_not_repeated(bench):
    bench.run(plan(4, evaluate_every_steps=2))
    assert bench.evaluated == [2, 4]


def test_an_early_stopped_run_does_not_resume(bench):
    bench.accuracy = {2: 0.5, 4: 0.7, 6: 0.7, 8: 0.6}.get
    chosen = plan(20, evaluate_every_steps=2, early_stopping_evaluations=2)
    end, reason = bench.run(chosen)
    assert (int(end.step), reason) == (8, "early")
    assert bench.ranking == Ranking(0.7, 4, 2)
    # The newer of two equally good checkpoints is kept.
    assert bench.kept() == [6, 8]
    end, reason = bench.resume(chosen)
    assert (int(end.step), reason) == (8, "early")
    assert bench.evaluated == [2, 4, 6, 8]


def test_a_better_evaluation_resets_early_stopping(bench):
    bench.accuracy = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.5}.get
    _, reason = bench.run(plan(5, evaluate_every_steps=1, early_stopping_evaluations=2))
    # The last evaluation ends the run, so the run does not stop early.
    assert (bench.evaluated, reason) == ([1, 2, 3, 4, 5], "finished")


@pytest.mark.parametrize("what", ["loss", "gradient_norm"])
@pytest.mark.parametrize("number", [3, 4, 6])
def test_no_state_is_saved_at_or_after_a_nonfinite_loss(bench, what, number):
    def step(current, batch):
        current, metrics = step_fn(current, batch)
        if int(current.step) == number:
            bad = {
                "loss": Mean(total=jnp.float32(math.nan), weight=jnp.float32(1)),
                "gradient_norm": jnp.float32(math.inf),
            }
            metrics = metrics | {what: bad[what]}
        return current, metrics

    with pytest.raises(NonFiniteLoss, match=f"^step {number}: the loss is "):
        bench.run(plan(6, evaluate_every_steps=2), step)
    assert bench.kept() == [step for step in (2, 4) if step < number]
    assert [row["step"] for row in bench.rows()] == list(range(1, number))


def test_no_state_is_saved_if_a_run_stops_at_a_nonfinite_loss(bench):
    def step(current, batch):
        current, metrics = step_fn(current, batch)
        signal.raise_signal(signal.SIGTERM)
        return current, metrics | {"gradient_norm": jnp.float32(math.nan)}

    with pytest.raises(NonFiniteLoss, match=r"^step 1:"):
        bench.run(plan(6), step)
    assert bench.kept() == []


def not_finite_at(numbers):
    def step(current, batch):
        current, metrics = step_fn(current, batch)
        if int(current.step) in numbers:
            metrics = metrics | {"gradient_norm": jnp.float32(math.nan)}
        return current, metrics

    return step


def test_skipped_steps_are_counted_and_excluded_from_means(bench):
    skips = plan(6, log_every_steps=3, on_nonfinite_step="skip")
    _, reason = bench.run(skips, not_finite_at({2, 4, 5, 6}))
    assert reason == "finished"
    first, second = bench.rows()
    totals, weights = zip(*(sums_of_step(step) for step in (1, 3)), strict=True)
    assert first["train/loss"] == pytest.approx(sum(totals) / sum(weights))
    assert first["train/skipped_steps"] == 1
    assert (second["train/loss"], second["train/skipped_steps"]) == ("nan", 3)


def test_ten_skipped_steps_in_a_row_end_the_run(bench):
    skips = plan(30, on_nonfinite_step="skip")
    with pytest.raises(
        NonFiniteLoss, match=r"^step 24: .*, after 9 skipped steps in a row"
    ):
        bench.run(skips, not_finite_at({3, *range(5, 14), *range(15, 30)}))


def test_the_state_is_saved_if_the_batches_fail(bench):
    def failing(start=0):
        yield from itertools.islice(batches(start), 4)
        raise ValueError("the disk is gone")

    bench.batches = failing
    with pytest.raises(ValueError, match="the disk is gone"):
        bench.run(plan(9))
    assert bench.kept() == [4]


# Orbax does not await the rest of a failed write.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("reads_collected")
def test_a_failed_save_is_raised_within_a_few_steps(bench):
    """Simulates a full disk from step 3 on: files cannot grow beyond 600 bytes."""
    taken, unlimited = [], resource.getrlimit(resource.RLIMIT_FSIZE)

    def step(current, batch):
        taken.append(int(current.step))
        if taken[-1] == 3:
            while not (bench.directory / "checkpoints" / "2").is_dir():
                time.sleep(0.02)
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, unlimited[1]))
        # The save has time to fail meanwhile.
        time.sleep(0.02)
        return step_fn(current, batch)

    try:
        with pytest.raises(SaveFailed, match=r"step 4 could not .* one is step 2"):
            bench.run(plan(400, evaluate_every_steps=2, log_every_steps=400), step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert taken[-1] < 100
    assert bench.kept() == [2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_after_the_step_and_saves(bench, capfd, number):
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    step = at_step(5, lambda: signal.raise_signal(number))
    end, reason = bench.run(plan(9), step)
    assert (int(end.step), reason) == (5, "stopped")
    assert bench.kept() == [5]
    assert bench.evaluated == []
    assert "stopping after this step and saving" in capfd.readouterr().err
    after = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    assert after == before


def test_a_signal_in_the_last_step_has_no_effect(bench):
    step = at_step(4, lambda: signal.raise_signal(signal.SIGTERM))
    end, reason = bench.run(plan(4), step)
    assert (int(end.step), reason) == (4, "finished")


@pytest.mark.parametrize("stopped_at", [2, 4, 6, 7])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_run(tmp_path, stopped_at):
    """Stops within an entry, at an evaluation, and after a worse evaluation."""
    chosen = plan(
        12, log_every_steps=3, evaluate_every_steps=4, early_stopping_evaluations=2
    )
    whole, cut = Bench(tmp_path / "whole"), Bench(tmp_path / "cut")
    whole.accuracy = cut.accuracy = {4: 0.7, 8: 0.7, 12: 0.6}.get
    expected, expected_reason = whole.run(chosen)
    step = at_step(stopped_at, lambda: signal.raise_signal(signal.SIGTERM))
    _, reason = cut.run(chosen, step)
    assert reason == "stopped"
    assert cut.kept()[-1] == stopped_at
    end, reason = cut.resume(chosen)
    assert reason == expected_reason
    np.testing.assert_array_equal(end.params["kernel"], expected.params["kernel"])
    assert int(end.step) == int(expected.step) == 12
    assert cut.ranking == whole.ranking == Ranking(0.7, 4, 2)
    assert cut.evaluated == whole.evaluated
    assert cut.kept() == whole.kept()

    def comparable(rows):
        return [
            {k: v for k, v in row.items() if k != "train/images_per_second"}
            for row in rows
        ]

    assert comparable(cut.rows("")) == comparable(whole.rows(""))


def test_resuming_a_finished_run_does_nothing(bench):
    bench.run(plan(3))
    end, reason = bench.resume(plan(3))
    assert (int(end.step), reason) == (3, "finished")
    assert bench.evaluated == [3]
    assert [row["step"] for row in bench.rows()] == [1, 2, 3]


def test_a_second_interrupt_ends_the_process_at_once():
    with loop.StopRequest(checkpoints=None) as stop:
        assert not stop.after(1)
        signal.raise_signal(signal.SIGINT)
        assert stop.after(2)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None)


def test_signal_handlers_are_restored_after_an_error():
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), loop.StopRequest(checkpoints=None):
        raise KeyError
    after = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    assert after == before
