"""Runs that are resumed by other numbers of devices or processes."""

import itertools
import os
import pathlib
import signal
import time

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome

TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5
"""Limits of the difference of a state's numbers, and of a step's loss, in 60 steps.

Other shapes sum in another order, and every step may increase the difference.
"""

Shape = tuple[int, int]
"""Number of processes, and of devices of each process."""


def resumed_elsewhere(
    bench: Bench,
    scratch: pathlib.Path,
    rng: np.random.Generator,
    saved_by: Shape,
    resumed_by: Shape,
) -> Outcome:
    """Stops a run of one shape by a signal to one process; another shape resumes it.

    All processes must save the same step and exit with code 0. The last state must be
    that of the run on one device, except for rounding.

    Args:
      bench: Has the run on one device.
      scratch: An empty folder.
      rng: Chooses the delay.
      saved_by: Shape of the run that is stopped.
      resumed_by: Shape of the run that resumes.
    """
    processes, devices = saved_by
    run = runs.start(
        scratch / "moved", bench.steps, processes=processes, devices=devices
    )
    run.until(lambda: run.rows() > runs.EVERY + 2)
    time.sleep(float(rng.uniform(0, 0.3)))
    # Only one process gets the signal, and not the script that started them.
    os.kill(_ranks(run)[-1], signal.SIGTERM)
    code, output = run.wait(), run.output()
    saved = [line for line in output.splitlines() if "stopped and saved" in line]
    orphans = runs.alive(run.process.pid)
    processes, devices = resumed_by
    runs.finish(scratch / "moved", bench.steps, processes=processes, devices=devices)
    difference = runs.largest_difference(
        scratch / "moved", bench.uninterrupted, bench.steps
    )
    losses = [
        np.abs(a["train/loss"] - b["train/loss"])
        for a, b in itertools.zip_longest(
            _train_rows(scratch / "moved"),
            _train_rows(bench.uninterrupted),
            fillvalue={},
        )
    ]
    passed = (
        code == 0
        and len(saved) == 1
        and not orphans
        and "Traceback" not in output
        and difference < TOLERANCE
        and np.max(losses) < LOSS_TOLERANCE
    )
    return Outcome(
        passed,
        f"{_words(saved_by)} → {_words(resumed_by)}: exit code {code}, "
        f"{saved[0].strip() if saved else output[-300:]}; largest difference "
        f"{difference:.1e}, of a step's loss {np.max(losses):.1e}",
        {"largest_difference": difference},
    )


def _train_rows(workdir: pathlib.Path) -> list[dict]:
    return [row for row in runs.records(workdir) if "train/loss" in row]


def _words(shape: Shape) -> str:
    return f"{shape[0]} processes × {shape[1]} devices"


def _ranks(run: runs.Run) -> list[int]:
    """Returns the processes of a run that train, in the order of their start."""
    commands = runs.commands(run.process.pid)
    training = {p for p, c in commands.items() if b"fpn_jax.main" in c.split(b"\0")}
    # A child that a rank has just forked still has the command line of the rank.
    return sorted(pid for pid in training if runs.parent(pid) not in training)
