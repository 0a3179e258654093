"""Small runs of the command line, and the files that they leave behind."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.stepping import Unread
from fpn_jax.experiment import Experiment
from fpn_jax.train.checkpoints import Checkpoints
from fpn_jax.train.state import TrainState
from fpn_jax.trained import info_in
from fpn_jax.workdir.folder import Workdir, stored_in

ROOT = pathlib.Path(__file__).parent.parent.parent
EVERY = 6
"""Steps between two evaluations, each of which saves a checkpoint."""
SPEED = "train/images_per_second"
END_S = 240.0
"""Seconds after which a run that has not ended is taken to hang."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one attempt.

    Attributes:
      passed: Whether the run did what is required.
      message: What happened, in a few words.
      values: What was measured.
    """

    passed: bool
    message: str
    values: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all attempts share.

    Attributes:
      scratch: Folder for all files.
      steps: Length of the runs.
      photographs: A folder of intact photographs; None generates images instead.
    """

    scratch: pathlib.Path
    steps: int = 60
    photographs: pathlib.Path | None = None

    @functools.cached_property
    def uninterrupted(self) -> pathlib.Path:
        """Workdir of a run without a fault."""
        finish(self.scratch / "uninterrupted", self.steps)
        return self.scratch / "uninterrupted"

    def differing_bytes(self, workdir: pathlib.Path) -> int:
        """Returns how many bytes of a run differ from the uninterrupted one."""
        return differing_bytes(workdir, self.uninterrupted, self.steps)


@functools.cache
def cache() -> tempfile.TemporaryDirectory:
    """Returns a folder for compiled steps, which only the first run has to compile."""
    return tempfile.TemporaryDirectory(prefix="fpn_jax_faults_")


def arguments(workdir: pathlib.Path, steps: int, *more: str) -> list[str]:
    """Returns the flags of a small run.

    Args:
      workdir: Where it trains.
      steps: Length of the run.
      *more: Further flags.
    """
    return [
        "--config=configs/fpn.py:smoke",
        f"--workdir={workdir}",
        # Half of the network, so that a run takes half the time.
        "--config.backbone.levels=(2,3)",
        "--config.data.source.train_records=96",
        "--config.data.source.validate_records=37",
        "--config.data.global_batch_size=16",
        # SGD, because AdamW's first updates are signs of gradients: a difference in the
        # last bit would become one of a full update. In 60 steps at this rate such a
        # difference grows to 4e-6 at most, at 0.05 to 1e-2 (two of five starts changed
        # in the last bit).
        "--config.optimizer.name=sgd",
        "--config.optimizer.learning_rate=0.02",
        f"--config.train.total_steps={steps}",
        f"--config.train.evaluate_every_steps={EVERY}",
        *more,
    ]


@dataclasses.dataclass
class Run:
    """A process that trains.

    Attributes:
      process: The process.
      workdir: Where it trains.
      log: File of its standard output and standard error.
    """

    process: subprocess.Popen
    workdir: pathlib.Path
    log: pathlib.Path

    def output(self) -> str:
        """Returns what it has printed so far."""
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], seconds: float = END_S) -> bool:
        """Waits until a condition is true; returns False if the process ended first.

        Raises:
          TimeoutError: Neither happened in time; the process was killed.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                return condition()
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"nothing in {seconds} s: {self.output()}")
            time.sleep(0.002)
        return True

    def wait(self, seconds: float = END_S) -> int:
        """Waits for the end of the process; returns the exit code.

        Raises:
          TimeoutError: It did not end in time, and was killed.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"no end in {seconds} s: {self.output()}") from None

    def kill(self) -> None:
        """Kills the process, and all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def rows(self) -> int:
        """Returns the number of entries that it has written."""
        path = Workdir(self.workdir).metrics
        return path.read_bytes().count(b"\n") if path.exists() else 0


def start(
    workdir: pathlib.Path,
    steps: int,
    *more: str,
    devices: int = 1,
    processes: int = 1,
    **variables: str,
) -> Run:
    """Starts a run; several processes are started by `launch/local.sh`.

    Args:
      workdir: Where it trains.
      steps: Length of the run.
      *more: Further flags.
      devices: Number of simulated devices of each process.
      processes: Number of processes.
      **variables: Environment variables.
    """
    workdir.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fpn_jax.main"]
    if processes > 1:
        command = ["bash", "launch/local.sh", str(processes), str(devices), "--"]
    bin_folder = os.path.dirname(sys.executable)
    starts = len(list(workdir.parent.glob(f"{workdir.name}.*.log")))
    log = workdir.with_suffix(f".{starts + 1}.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *arguments(workdir, steps, *more)],
            cwd=ROOT,
            env=os.environ
            | {
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "NPROC": "16",
                "JAX_COMPILATION_CACHE_DIR": os.environ.get(
                    "JAX_COMPILATION_CACHE_DIR", cache().name
                ),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            }
            | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A process group of its own: its processes can be counted and killed.
            start_new_session=True,
        )
    return Run(process, workdir, log)


def finish(workdir: pathlib.Path, steps: int, *more: str, **options) -> str:
    """Runs to the end; returns the output.

    Args:
      workdir: Where it trains.
      steps: Length of the run.
      *more: Further flags.
      **options: Further arguments of `start`.

    Raises:
      RuntimeError: The exit code is not 0.
    """
    run = start(workdir, steps, *more, **options)
    code = run.wait()
    if code:
        raise RuntimeError(f"exit code {code}: {run.output()}")
    return run.output()


def alive(group: int) -> list[int]:
    """Returns the processes of a process group that still run; zombies do not."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state ppid pgrp …, and the name may contain anything.
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def commands(group: int) -> dict[int, bytes]:
    """Returns the command of every process of a process group that still runs."""
    found = {}
    for pid in alive(group):
        # A compiler or another short process may have ended since it was listed.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[pid] = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def parent(pid: int) -> int | None:
    """Returns the parent of a process; None if the process has ended."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def like(meta: dict[str, Any]) -> TrainState:
    """Returns the shapes and types of a state, which the meta of a checkpoint implies.

    Args:
      meta: Meta of a checkpoint.
    """
    experiment = Experiment(stored_in(meta, "the run"), info_in(meta))
    records = Unread(experiment.info, meta["records"])
    return experiment.prepare(records, records).like


def state(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint, by name; also those of the generator."""
    checkpoints = Checkpoints(Workdir(workdir).checkpoints, read_only=True)
    try:
        restored = checkpoints.restore(step, like(checkpoints.meta(step)))
    finally:
        checkpoints.close()
    return arrays(restored)


def arrays(restored: TrainState) -> dict[str, np.ndarray]:
    """Returns every array of a state, by name; also those of the generator."""
    restored = restored.replace(rng=jax.random.key_data(restored.rng))
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def records(workdir: pathlib.Path) -> list[dict]:
    """Returns the entries of `metrics.jsonl`, without the speed."""
    rows = map(json.loads, Workdir(workdir).metrics.read_text().splitlines())
    return [{key: row[key] for key in row if key != SPEED} for row in rows]


def differing_bytes(ours: pathlib.Path, theirs: pathlib.Path, step: int) -> int:
    """Returns how many bytes of two runs' states differ, plus differing entries.

    The states are parameters, statistics, optimizer, moving average, generator and
    step. An entry of the metrics that differs counts as one byte: entries have the loss
    of every step, so equal entries mean equal batches.
    """
    a, b = state(ours, step), state(theirs, step)
    if a.keys() != b.keys():
        return sum(leaf.nbytes for leaf in (a | b).values())
    bytes_of = (
        np.frombuffer(a[k].tobytes(), "u1") != np.frombuffer(b[k].tobytes(), "u1")
        for k in a
    )
    count = sum(int(np.count_nonzero(differ)) for differ in bytes_of)
    rows = records(ours), records(theirs)
    different = sum(x != y for x, y in zip(*rows, strict=False))
    return count + different + abs(len(rows[0]) - len(rows[1]))


def largest_difference(ours: pathlib.Path, theirs: pathlib.Path, step: int) -> float:
    """Returns the largest difference of any number between two runs' states.

    Raises:
      KeyError: One state has arrays that the other state does not have.
    """
    a, b = state(ours, step), state(theirs, step)
    # NumPy's maximum, unlike Python's, is NaN if one of the numbers is NaN.
    return float(np.max([np.max(np.abs(a[k].astype("f8") - b[k])) for k in a | b]))
