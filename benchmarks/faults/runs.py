"""Real runs of the command line, small ones, and what they leave behind."""

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

from fpn_jax import config as configs
from fpn_jax.experiment import Experiment
from fpn_jax.train.checkpoints import Checkpoints
from fpn_jax.train.state import TrainState

ROOT = pathlib.Path(__file__).parent.parent.parent
EVERY = 6
"""Steps between two evaluations, each with a checkpoint."""
SPEED = "train/images_per_second"
END_S = 240.0
"""A run that has not ended by then hangs."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    Attributes:
      held: Whether what must happen did.
      said: What happened, in a few words.
      figures: What was measured.
    """

    held: bool
    said: str
    figures: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What attempts share: a folder, and a run that nothing happened to.

    Attributes:
      scratch: For everything.
      steps: Length of the runs that are cut off.
      photographs: A folder of good photographs; None for made ones.
    """

    scratch: pathlib.Path
    steps: int = 60
    photographs: pathlib.Path | None = None

    @functools.cached_property
    def uninterrupted(self) -> pathlib.Path:
        """Workdir of a run that went through."""
        finish(self.scratch / "uninterrupted", self.steps)
        return self.scratch / "uninterrupted"

    def differing_bytes(self, workdir: pathlib.Path) -> int:
        """Returns how many bytes of a run and of the uninterrupted one differ."""
        return differing_bytes(workdir, self.uninterrupted, self.steps)


@functools.cache
def cache() -> tempfile.TemporaryDirectory:
    """Returns a folder for compiled steps: all runs but the first start quickly."""
    return tempfile.TemporaryDirectory(prefix="fpn_jax_faults_")


def arguments(workdir: pathlib.Path, steps: int, *more: str) -> list[str]:
    """Returns the flags of a small run."""
    return [
        "--config=configs/fpn.py:smoke",
        f"--workdir={workdir}",
        # Half of the network: a run lasts half as long.
        "--config.backbone.levels=(2,3)",
        "--config.data.drawn.train_records=96",
        "--config.data.drawn.validate_records=37",
        "--config.data.global_batch_size=16",
        # SGD: AdamW's first steps are signs of gradients, which makes of a difference
        # in the last bit one of the whole step. In 60 steps at this rate it grows to
        # 4e-6 at most, at 0.05 to 1e-2 (two of five starts changed in the last bit).
        "--config.optimizer.name=sgd",
        "--config.optimizer.learning_rate=0.02",
        f"--config.train.total_steps={steps}",
        f"--config.train.evaluate_every_steps={EVERY}",
        *more,
    ]


@dataclasses.dataclass
class Run:
    """A process that trains, and the file of what it says.

    Attributes:
      process: The process.
      workdir: Its workdir.
      log: Both of its outputs.
    """

    process: subprocess.Popen
    workdir: pathlib.Path
    log: pathlib.Path

    def said(self) -> str:
        """Returns what it said so far."""
        return self.log.read_text(errors="replace")

    def until(self, true: Callable[[], bool], seconds: float = END_S) -> bool:
        """Waits for something; returns False where the process ended before it."""
        deadline = time.monotonic() + seconds
        while not true():
            if self.process.poll() is not None:
                return true()
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"nothing in {seconds} s: {self.said()}")
            time.sleep(0.002)
        return True

    def ended(self, seconds: float = END_S) -> int:
        """Waits for its end; returns the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"no end in {seconds} s: {self.said()}") from None

    def kill(self) -> None:
        """Ends it at once, and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def rows(self) -> int:
        """Returns the number of records it has written."""
        path = self.workdir / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def start(
    workdir: pathlib.Path,
    steps: int,
    *more: str,
    devices: int = 1,
    processes: int = 1,
    **variables: str,
) -> Run:
    """Starts a run; with several processes through `launch/local.sh`."""
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
            # A group of its own: what it starts can be counted, and ended with it.
            start_new_session=True,
        )
    return Run(process, workdir, log)


def finish(workdir: pathlib.Path, steps: int, *more: str, **options) -> str:
    """Runs to the end; returns what was said.

    Raises:
      RuntimeError: It ended otherwise than well.
    """
    run = start(workdir, steps, *more, **options)
    code = run.ended()
    if code:
        raise RuntimeError(f"exit code {code}: {run.said()}")
    return run.said()


def alive(group: int) -> list[int]:
    """Returns the processes of a group that are still there, zombies left out."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state ppid pgrp …, and the name may hold anything.
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def described(meta: dict[str, Any]) -> TrainState:
    """Returns the shapes and types of a state, from what its checkpoint says of it."""
    experiment = Experiment(configs.load(meta["config"]), tuple(meta["classes"]))
    transformation, _ = experiment.optimizer(experiment.total_steps(meta["records"]))
    return jax.eval_shape(lambda: experiment.initial_state(transformation))


def state(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint, by name: the generator's words too."""
    checkpoints = Checkpoints(
        workdir / "checkpoints", monitor="accuracy", read_only=True
    )
    try:
        restored = checkpoints.restore(step, described(checkpoints.meta(step)))
    finally:
        checkpoints.close()
    restored = restored.replace(rng=jax.random.key_data(restored.rng))
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def records(workdir: pathlib.Path) -> list[dict]:
    """Returns the records of a run, without the speed."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{key: row[key] for key in row if key != SPEED} for row in rows]


def differing_bytes(ours: pathlib.Path, theirs: pathlib.Path, step: int) -> int:
    """Returns how many bytes of two runs' states differ, and records that do.

    Parameters, statistics, optimizer, average, generator, step; a record that differs
    counts as a byte. The losses of all steps say that the batches were the same.
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
    unlike = sum(x != y for x, y in zip(*rows, strict=False))
    return count + unlike + abs(len(rows[0]) - len(rows[1]))


def largest_difference(ours: pathlib.Path, theirs: pathlib.Path, step: int) -> float:
    """Returns the largest difference between two runs' states, of any number.

    Raises:
      KeyError: One has arrays that the other has not.
    """
    a, b = state(ours, step), state(theirs, step)
    # NumPy's maximum, unlike Python's, is NaN where one of the numbers is.
    return float(np.max([np.max(np.abs(a[k].astype("f8") - b[k])) for k in a | b]))
