"""What the command line does: train, evaluate, check."""

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fpn_jax import config as configs
from fpn_jax import run_report
from fpn_jax.data import check as data_check
from fpn_jax.data.records import SPLITS, AbsentSplit, Source
from fpn_jax.errors import InputError, RunError
from fpn_jax.experiment import Config, Experiment, check_numbers, read_options, source
from fpn_jax.train import loop, parallel
from fpn_jax.train.checkpoints import Checkpoints, DamagedCheckpoint
from fpn_jax.train.plan import Plan, Ranking
from fpn_jax.train.progress import ProgressBar
from fpn_jax.train.state import TrainState, with_variables
from fpn_jax.train.training_metrics import NonFiniteLoss
from fpn_jax.train.writers import MetricsWriter, NoWriter
from fpn_jax.trained import Trained, initial_weights
from fpn_jax.workdir import lock


def train(config: Config, workdir: str) -> int:
    """Trains, or goes on where the run of the workdir stands; returns the exit code.

    Raises:
      InputError: The config, the data or the workdir cannot be used.
    """
    check_numbers(config)
    records = source(config, "train", encoded=config.data.quick_decoding)
    validate = source(config, "validate")
    experiment = Experiment(config, tuple(records.classes))
    transformation, schedule = experiment.optimizer(
        experiment.total_steps(len(records))
    )
    plan = experiment.plan(len(records), schedule)
    initial = functools.partial(experiment.initial_state, transformation)
    like = jax.eval_shape(initial)
    experiment.check_parts(like.params)
    step_at = experiment.train_step_at(transformation)
    # Made once more where the run begins; here only for what they refuse.
    experiment.train_batches(records, 0).close()
    if tuple(validate.classes) != experiment.classes:
        raise InputError(_other_classes(validate.classes, experiment.classes))
    experiment.eval_transform({"image": np.zeros((8, 8, 3), np.uint8)})
    experiment.check_freezing(plan.total_steps, like)
    weights = (
        None if configs.is_begun(Path(workdir)) else initial_weights(experiment, like)
    )
    directory = Path(workdir)
    with _claim(directory, config), contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(
            directory / "checkpoints",
            monitor=plan.monitor,
            keep_latest=config.train.keep_checkpoints,
        )
        stack.callback(checkpoints.close)
        stop = stack.enter_context(loop.StopRequest(checkpoints))
        started = restore_newest(checkpoints, like)
        if started is None:
            first = _compile_fast(initial)
            if weights is None:
                weights = initial_weights(experiment, like)
            if weights:
                first = with_variables(first, weights)
            started = 0, parallel.replicate(first), {}
        run = _Run(experiment, directory, plan, checkpoints, *started)
        run.refuse_other_data(records)
        return run.train(step_at, records, validate, stop)


def _compile_fast(initial):
    # Random numbers for every parameter, drawn once. At level 1 a CPU compiles them in
    # 50 to 80 % of the default's time; at level 0, drawing takes seven times as long.
    options = {"xla_backend_optimization_level": 1}
    cpu = jax.default_backend() == "cpu"
    return jax.jit(initial, compiler_options=options if cpu else None)()


@contextlib.contextmanager
def _claim(directory: Path, config: Config) -> Iterator[None]:
    """Makes the workdir, marks it with its config, and keeps others out.

    Raises:
      InputError: It cannot be written, is in use, or holds a run of another config.
    """
    if ":/" in str(directory):
        raise InputError(
            f"--workdir={directory} is an address; take a folder, or mount it as one"
        )
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                stack.enter_context(lock.hold(directory))
            _mark(directory, config)
        except OSError as error:
            raise InputError(
                f"--workdir={directory} cannot be written: {error.strerror}"
            ) from error
        yield


def _mark(directory: Path, config: Config) -> None:
    path = directory / "config.json"
    now = configs.as_json(config)
    try:
        stored = json.loads(path.read_text()) if path.exists() else None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    # Without a checkpoint there is nothing that another config would spoil.
    if stored is not None and configs.is_begun(directory):
        configs.refuse_other(stored, now, str(directory))
    parallel.barrier("config read")
    if jax.process_index() == 0 and stored != now:
        configs.save(now, path)


def restore_newest(
    checkpoints: Checkpoints, like: TrainState
) -> tuple[int, TrainState, dict[str, Any]] | None:
    """Returns step, state and meta of the newest checkpoint that reads back whole.

    Those after it are set aside. Returns None where there is none: at a start.

    Raises:
      InputError: There are some, but none is whole.
    """
    damaged = []
    for step in reversed(checkpoints.steps()):
        try:
            restored = step, checkpoints.restore(step, like), checkpoints.meta(step)
        except DamagedCheckpoint as error:
            print(f"checkpoint left out: {error}", file=sys.stderr)
            damaged.append(step)
            continue
        for later in damaged:
            print(f"moved to {checkpoints.set_aside(later)}", file=sys.stderr)
        return restored
    if damaged:
        raise InputError(
            "none of the workdir's checkpoints reads back whole; they are left as they "
            "are, take another --workdir"
        )
    return None


@dataclasses.dataclass
class _Run:
    """A training run on its way: what its parts share."""

    experiment: Experiment
    directory: Path
    plan: Plan
    checkpoints: Checkpoints
    start_step: int
    state: TrainState
    meta: dict[str, Any]

    def refuse_other_data(self, records: Source) -> None:
        """Refuses to go on with other data than the run began with.

        Raises:
          InputError: Names the classes or the sizes that differ.
        """
        if not self.meta:
            return
        if tuple(self.meta["classes"]) != self.experiment.classes:
            raise InputError(
                _other_classes(self.experiment.classes, self.meta["classes"])
            )
        if self.meta["records"] != len(records):
            raise InputError(
                f"the training split has {len(records)} records, but the run of "
                f"{self.directory} began with {self.meta['records']}; take another "
                f"--workdir"
            )

    def train(
        self, step_at, records: Source, validate: Source, stop: loop.StopRequest
    ) -> int:
        """Trains to the end, a stop or a failure; returns the exit code."""
        start, total = self.start_step, self.plan.total_steps
        first = jax.process_index() == 0
        batches = self.experiment.train_batches(records, start)
        writer = (
            MetricsWriter(self.directory, resume_step=start) if first else NoWriter()
        )
        progress = ProgressBar(total, start_step=start, shown=first)
        ranking = Ranking.from_json(self.meta.get("ranking"))
        # Of earlier processes of this run, then of this one.
        skipped = [tuple(file) for file in self.meta.get("skipped", [])]

        def evaluate(state: TrainState) -> dict[str, float]:
            evaluation, bad = self.experiment.evaluate(state.eval_variables, validate)
            met = [*skipped, *batches.skipped.values(), *bad]
            skipped[:] = dict.fromkeys(met)
            return evaluation.figures()

        try:
            if start:
                progress.say(f"resuming {self.directory} at step {start} of {total}")
            self.state, reason = loop.train(
                self.state,
                start_step=start,
                step_at=step_at,
                batches=batches,
                evaluate=evaluate,
                plan=self.plan,
                ranking=ranking,
                pending=self.meta.get("pending"),
                checkpoints=self.checkpoints,
                meta={
                    "config": configs.as_json(self.experiment.config),
                    "classes": list(self.experiment.classes),
                    "records": len(records),
                    "skipped": skipped,
                },
                writer=writer,
                progress=progress,
                stop=stop,
            )
            self.checkpoints.wait()
        except NonFiniteLoss as error:
            raise RunError(f"{error}; {self._last_good()}") from error
        finally:
            progress.close()
            batches.close()
            writer.close()
        if reason == "stopped":
            step = int(self.state.step)
            progress.say(
                f"stopped and saved at step {step} of {total}; the same command goes on"
            )
            return 0
        self._conclude(validate, skipped)
        return 0

    def _last_good(self) -> str:
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        if not steps:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is step {steps[-1]} of {self.directory}"

    def _conclude(self, validate: Source, skipped: list[tuple[str, str]]) -> None:
        """Evaluates the best checkpoint on the validate split and reports on it."""
        step = self.checkpoints.best_step()
        variables = self.checkpoints.restore_eval_variables(step, self.state)
        evaluation, _ = self.experiment.evaluate(variables, validate)
        if jax.process_index() != 0:
            return
        report = self.directory / "report.html"
        run_report.write(
            report,
            self.experiment,
            step=step,
            variables=variables,
            evaluation=evaluation,
            records=validate,
            skipped=skipped,
            metrics=self.directory / "metrics.jsonl",
        )
        if skipped:
            print(f"skipped {len(skipped)} files that do not decode whole")
        accuracy = evaluation.metrics["accuracy"].compute()
        print(
            f"done: validate accuracy {accuracy:.4f} at step {step}, the best one\n"
            f"look at {report}"
        )


def evaluate(trained: Trained, split: str, data_root: str | None) -> int:
    """Evaluates a split, prints the figures and writes them; returns the exit code.

    Raises:
      InputError: The split is not there, or has other classes.
    """
    config = trained.experiment.config
    if data_root is not None:
        if config.data.source == "drawn":
            raise InputError("--data_root has no effect: the run learned drawn data")
        moved = configs.as_json(config)
        moved["data"]["root"] = data_root
        config = configs.load(moved)
    check_numbers(config)
    records = source(config, split)
    if tuple(records.classes) != trained.experiment.classes:
        raise InputError(_other_classes(records.classes, trained.experiment.classes))
    evaluation, skipped = trained.experiment.evaluate(trained.variables, records)
    computed = {name: m.compute() for name, m in evaluation.metrics.items()}
    figures = {
        "split": split,
        "step": trained.step,
        "records": len(evaluation.rows["index"]),
        "skipped": [": ".join(file) for file in skipped],
        "classes": list(trained.experiment.classes),
        **computed,
    }
    if jax.process_index() == 0:
        path = trained.workdir / f"evaluation_{split}.json"
        path.write_text(json.dumps(figures, indent=2) + "\n")
        for name, value in figures.items():
            shown = f"{value:.4f}" if isinstance(value, float) else value
            print(f"{name}: {shown}")
        print(f"written to {path}")
    return 0


def _other_classes(data: Sequence[str], model: Sequence[str]) -> str:
    return f"the data has classes {', '.join(data)}, the model {', '.join(model)}"


def check(config: Config) -> int:
    """Decodes every record of every split, and names what is bad or there twice.

    Returns:
      1 if a record is bad, or one image stands under two splits or classes; else 0.
    """
    reports, threads = {}, read_options(config).num_threads
    for split in SPLITS:
        try:
            records = source(config, split)
        except AbsentSplit as error:
            print(f"{split}: {error}")
            continue
        reports[split] = data_check.check(records, threads)
        for line in reports[split].text().splitlines():
            print(f"{split}: {line}")
    repeated = data_check.find_duplicates(reports)
    for one in repeated:
        print(one.text())
    bad = not all(report.passed for report in reports.values())
    # What only looks alike may be two photographs of one moment.
    return 1 if bad or any(one.bits is None for one in repeated) else 0
