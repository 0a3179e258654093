"""`--mode=train`: trains a model, or resumes the run in `--workdir`."""

import contextlib
import dataclasses
import sys
from typing import Any

import jax

from fpn_jax.config import as_json
from fpn_jax.data.records import Source
from fpn_jax.errors import InputError, RunError
from fpn_jax.experiment import Experiment, Prepared
from fpn_jax.modes import Options
from fpn_jax.modes.report import write_report
from fpn_jax.parts import source
from fpn_jax.resolve import resolve
from fpn_jax.train import loop, parallel
from fpn_jax.train.checkpoints import Checkpoints, DamagedCheckpoint
from fpn_jax.train.plan import Ranking
from fpn_jax.train.progress import ProgressBar
from fpn_jax.train.state import TrainState, with_variables
from fpn_jax.train.training_metrics import NonFiniteLoss
from fpn_jax.train.writers import MetricsWriter, NoWriter
from fpn_jax.trained import Trained, info_in, initial_weights
from fpn_jax.workdir.folder import Workdir

SUMMARY = "Trains a model, or resumes the run in --workdir."
TAKES = frozenset({"config", "workdir"})
NEEDS = frozenset({"config", "workdir"})


def run(options: Options) -> int:
    """Trains until the end of the run or a signal, and returns the exit code.

    Args:
      options: The values of the flags.

    Raises:
      InputError: The config, the data or the workdir cannot be used.
      RunError: The training failed. Saved checkpoints are kept.
    """
    workdir = Workdir(options.workdir)
    workdir.refuse_unusable_name()
    config = resolve(options.given, options.workdir)
    records = source(config, "train", encoded=config.data.quick_decoding)
    validate = source(config, "validate")
    prepared = Experiment(config, records.info).prepare(records, validate)
    for note in _notes(records, validate):
        print(note, file=sys.stderr)
    weights = None
    if not workdir.is_begun():
        # Read the weights now, so that wrong ones are refused before the first write.
        weights = initial_weights(prepared.experiment, prepared.like)
    with workdir.claim(config), contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(
            workdir.checkpoints,
            monitor=prepared.plan.monitor,
            keep_latest=config.train.keep_checkpoints,
        )
        stack.callback(checkpoints.close)
        stop = stack.enter_context(loop.StopRequest(checkpoints))
        started = restore_newest(checkpoints, prepared.like, workdir)
        if started is None:
            first = _compile_fast(prepared.initial)
            if weights is None:
                weights = initial_weights(prepared.experiment, prepared.like)
            if weights:
                first = with_variables(first, weights)
            started = 0, parallel.replicate(first), {}
        training = _Training(prepared, workdir, checkpoints, *started)
        training.refuse_other_data(records)
        return training.run(records, validate, stop)


def _notes(records: Source, validate: Source) -> list[str]:
    """Returns lines about files that are not used and classes that are not measured."""
    notes = [
        f"{split}: {line}"
        for split, source in (("train", records), ("validate", validate))
        for kind in ("notes", "remarks")
        for line in getattr(source, kind, ())
    ]
    # Not every source knows its labels without decoding the records.
    labels = set(getattr(validate, "labels", range(len(validate.info.classes))))
    absent = [
        name for label, name in enumerate(validate.info.classes) if label not in labels
    ]
    if absent:
        notes.append(
            f"the validation split has no image of {', '.join(map(repr, absent))}: its "
            "metrics say nothing about that"
        )
    return notes


def _compile_fast(initial):
    # The first state is computed once. On a CPU, its compilation at level 1 takes 50 to
    # 80 % of the default's time; at level 0, its computation takes 7 times as long.
    options = {"xla_backend_optimization_level": 1}
    cpu = jax.default_backend() == "cpu"
    return jax.jit(initial, compiler_options=options if cpu else None)()


def restore_newest(
    checkpoints: Checkpoints, like: TrainState, workdir: Workdir
) -> tuple[int, TrainState, dict[str, Any]] | None:
    """Returns step, state and meta of the newest intact checkpoint.

    Newer checkpoints, which are damaged, are moved out of the folder of checkpoints.

    Args:
      checkpoints: The checkpoints of the run.
      like: Shapes of the state.
      workdir: Folder of the run.

    Returns:
      Step, state and meta; None if there is no checkpoint.

    Raises:
      InputError: There are checkpoints, but all of them are damaged, or they belong to
        another architecture.
    """
    damaged = []
    for step in reversed(checkpoints.steps()):
        try:
            restored = step, checkpoints.restore(step, like), checkpoints.meta(step)
        except DamagedCheckpoint as error:
            print(f"checkpoint skipped (damaged): {error}", file=sys.stderr)
            damaged.append(step)
            continue
        for later in damaged:
            target = workdir.damaged_checkpoint(later)
            checkpoints.move(later, target)
            print(f"damaged checkpoint moved to {target}", file=sys.stderr)
        return restored
    if damaged:
        raise InputError(
            f"all checkpoints in {workdir} are damaged; they are not changed: choose "
            "another --workdir"
        )
    return None


@dataclasses.dataclass
class _Training:
    """A training that runs: the state that its methods share."""

    prepared: Prepared
    workdir: Workdir
    checkpoints: Checkpoints
    start_step: int
    state: TrainState
    meta: dict[str, Any]

    def refuse_other_data(self, records: Source) -> None:
        """Refuses to resume with other data than the run began with.

        Args:
          records: The training split.

        Raises:
          InputError: The classes or the number of records differ.
        """
        if not self.meta:
            return
        stored, now = info_in(self.meta).classes, self.prepared.experiment.info.classes
        if stored != tuple(now):
            raise InputError(
                f"the data has the classes {', '.join(now)}, but the model has "
                f"{', '.join(stored)}"
            )
        if self.meta["records"] != len(records):
            raise InputError(
                f"the training split has {len(records)} records, but the run in "
                f"{self.workdir} began with {self.meta['records']}; choose another "
                f"--workdir"
            )

    def run(self, records: Source, validate: Source, stop: loop.StopRequest) -> int:
        """Trains until the end of the run or a signal, and returns the exit code.

        Args:
          records: The training split.
          validate: The validation split.
          stop: Tells after every step whether to stop.

        Raises:
          RunError: The training failed.
        """
        plan, experiment = self.prepared.plan, self.prepared.experiment
        start, total = self.start_step, plan.total_steps
        first = jax.process_index() == 0
        batches = self.prepared.batches_from(start)
        metrics = self.workdir.metrics
        writer = MetricsWriter(metrics, resume_step=start) if first else NoWriter()
        progress = ProgressBar(total, start_step=start, shown=first)
        # Bad files of earlier processes of this run; those of this process follow.
        skipped = [tuple(file) for file in self.meta.get("skipped", [])]

        def evaluate(state: TrainState) -> dict[str, float]:
            evaluation, bad = experiment.evaluate(state.eval_variables, validate)
            files = [*skipped, *batches.skipped.values(), *bad]
            skipped[:] = dict.fromkeys(files)
            return evaluation.scalars()

        try:
            if start:
                progress.say(f"resuming {self.workdir} at step {start} of {total}")
            training = loop.Loop(
                step_at=self.prepared.step_at,
                evaluate=evaluate,
                plan=plan,
                ranking=Ranking.from_json(self.meta.get("ranking")),
                checkpoints=self.checkpoints,
                meta={
                    "config": as_json(experiment.config),
                    "info": dataclasses.asdict(experiment.info),
                    "records": len(records),
                    "skipped": skipped,
                },
                writer=writer,
                progress=progress,
                stop=stop,
            )
            self.state, reason = training.train(
                self.state, start, batches, self.meta.get("pending")
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
                f"stopped and saved at step {step} of {total}; run the same command "
                "again to resume"
            )
            return 0
        self._conclude(validate, skipped)
        return 0

    def _last_good(self) -> str:
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        if not steps:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is step {steps[-1]} in {self.workdir}"

    def _conclude(self, validate: Source, skipped: list[tuple[str, str]]) -> None:
        """Evaluates the best checkpoint on the validation split; writes the report."""
        step = self.checkpoints.best_step()
        assert step is not None, "a finished training has a checkpoint"
        variables = self.checkpoints.restore_eval_variables(step, self.state)
        experiment = self.prepared.experiment
        evaluation, _ = experiment.evaluate(variables, validate)
        if jax.process_index() != 0:
            return
        best = Trained(self.workdir, experiment, step, variables)
        report = write_report(best, "validate", validate, evaluation, skipped)
        if skipped:
            print(f"Skipped files that cannot be decoded: {len(skipped)}")
        monitor = self.prepared.plan.monitor
        value = evaluation.scalars()[monitor]
        name = monitor.replace("_", " ")
        print(
            f"Best checkpoint: step {step}, validation {name} {value:.4f}\n"
            f"Report: {report}"
        )
