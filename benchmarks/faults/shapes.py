"""Saved by some devices or processes, resumed by others."""

import itertools
import os
import pathlib
import signal
import time

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome

TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5
"""Largest differences of any number of a state, and of any step's loss, in 60 steps.

Sums are taken in another order, and every step may make the difference larger.
"""

Shape = tuple[int, int]
"""Processes, and devices of each."""


def resumed_elsewhere(
    bench: Bench,
    scratch: pathlib.Path,
    rng: np.random.Generator,
    saved_by: Shape,
    resumed_by: Shape,
) -> Outcome:
    """Stops a run of one shape by a signal to one process; another shape goes on.

    Both must save the same step and end with 0, and the state at the end be that of the
    run on one device, but for rounding.
    """
    processes, devices = saved_by
    run = runs.start(
        scratch / "moved", bench.steps, processes=processes, devices=devices
    )
    run.until(lambda: run.rows() > runs.EVERY + 2)
    time.sleep(float(rng.uniform(0, 0.3)))
    # Of several processes to one alone, and not to the script that started them.
    os.kill(_ranks(run)[-1], signal.SIGTERM)
    code, said = run.ended(), run.said()
    seconds_of = [line for line in said.splitlines() if "stopped and saved" in line]
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
    held = (
        code == 0
        and len(seconds_of) == 1
        and not orphans
        and "Traceback" not in said
        and difference < TOLERANCE
        and np.max(losses) < LOSS_TOLERANCE
    )
    return Outcome(
        held,
        f"{_words(saved_by)} → {_words(resumed_by)}: exit code {code}, "
        f"{seconds_of[0].strip() if seconds_of else said[-300:]}; largest difference "
        f"{difference:.1e}, of a step's loss {np.max(losses):.1e}",
        {"largest_difference": difference},
    )


def _train_rows(workdir: pathlib.Path) -> list[dict]:
    return [row for row in runs.records(workdir) if "train/loss" in row]


def _words(shape: Shape) -> str:
    return f"{shape[0]} processes × {shape[1]} devices"


def _ranks(run: runs.Run) -> list[int]:
    """Returns the processes of a run that train, the last rank last."""
    words = {
        pid: pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        for pid in runs.alive(run.process.pid)
    }
    return sorted(pid for pid, given in words.items() if b"fpn_jax.main" in given)
