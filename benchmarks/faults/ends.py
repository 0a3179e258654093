"""Runs that end early: kill -9 at any moment, SIGTERM, Ctrl-C, a full disk."""

import itertools
import os
import pathlib
import resource
import signal
import time

import numpy as np

from benchmarks.faults import runs, shapes
from benchmarks.faults.runs import Bench, Outcome
from fpn_jax.workdir.folder import Workdir

SHARED_MEMORY = pathlib.Path("/dev/shm")


def _saves(run: runs.Run) -> bool:
    folder = Workdir(run.workdir).checkpoints
    return any("orbax-checkpoint-tmp" in path.name for path in _listed(folder))


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _evaluates(run: runs.Run) -> bool:
    path = Workdir(run.workdir).metrics
    last = path.read_text().splitlines()[-1:] if path.exists() else []
    return any(
        '"train/loss"' in row and _step_of(row) % runs.EVERY == 0 for row in last
    )


def _step_of(row: str) -> int:
    number = row.partition('"step": ')[2].partition(",")[0]
    return int(number) if number.isdigit() else -1


MOMENTS = {
    "while it starts": lambda run: True,
    "in a step": lambda run: run.rows() > 0,
    "while it saves": _saves,
    "while it evaluates": _evaluates,
}
"""Name of a moment → function that returns whether it has come."""


def killed(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, kills: int = 5
) -> Outcome:
    """Kills one run several times, then lets it end: no byte may differ.

    Args:
      bench: Has the run that was not killed.
      scratch: An empty folder.
      rng: Chooses the first moment, and the delay after each moment.
      kills: Number of kills.
    """
    workdir, moments = scratch / "killed", []
    first = int(rng.integers(len(MOMENTS)))
    names = itertools.islice(itertools.cycle(MOMENTS), first, first + kills)
    for name in names:
        run = runs.start(workdir, bench.steps)
        longest = 4.0 if name == "while it starts" else 0.05
        before = run.rows()
        come = run.until(
            lambda run=run, before=before, name=name: (
                name == "while it starts"
                or (run.rows() != before and MOMENTS[name](run))
            )
        )
        time.sleep(float(rng.uniform(0, longest)))
        run.kill()
        moments.append(name if come else "at its end")
    output = runs.finish(workdir, bench.steps)
    count = bench.differing_bytes(workdir)
    return Outcome(
        count == 0 and "Traceback" not in output,
        f"killed {', '.join(moments)}: {count} bytes differ",
        {"kills": kills, "differing_bytes": count},
    )


def another_seed(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """The control: a run with another seed must differ, or no comparison can fail."""
    seed = f"--config.train.seed={int(rng.integers(1, 1000))}"
    runs.finish(scratch / "other", bench.steps, seed)
    count = bench.differing_bytes(scratch / "other")
    largest = runs.largest_difference(
        scratch / "other", bench.uninterrupted, bench.steps
    )
    return Outcome(
        count > 0 and largest > 10 * shapes.TOLERANCE,
        f"{count} bytes differ, the largest difference is {largest:.1e}",
        {"differing_bytes": count, "largest_difference": largest},
    )


def asked_to_stop(
    bench: Bench,
    scratch: pathlib.Path,
    rng: np.random.Generator,
    number: signal.Signals,
) -> Outcome:
    """Sends a signal to a run with data workers.

    SIGINT goes to all of its processes, as Ctrl-C in a terminal does. The run must
    save, exit with code 0, print how to resume, and leave no process and no shared
    memory behind. After it has resumed, no byte may differ.

    Args:
      bench: Has the run that was not stopped.
      scratch: An empty folder.
      rng: Chooses the delay.
      number: The signal.
    """
    before = set(_listed(SHARED_MEMORY))
    workers = "--config.data.num_workers=2"
    run = runs.start(scratch / "stopped", bench.steps, workers)
    run.until(lambda: run.rows() > 2 * runs.EVERY)
    time.sleep(float(rng.uniform(0, 0.3)))
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(run.process.pid, number)
    else:
        run.process.send_signal(number)
    code = run.wait(60)
    seconds = time.monotonic() - began
    output = run.output()
    orphans = _left_after(run.process.pid, 5.0)
    shared = _shared_since(before)
    runs.finish(scratch / "stopped", bench.steps, workers)
    # The other run has no workers; the number of workers changes no byte.
    count = bench.differing_bytes(scratch / "stopped")
    passed = (
        code == 0
        and "run the same command again to resume" in " ".join(output.split())
        and "Traceback" not in output
        and not orphans
        and not shared
        and count == 0
    )
    return Outcome(
        passed,
        f"{number.name}: exit code {code} after {seconds:.1f} s, "
        f"{len(orphans)} orphans, "
        f"{len(shared)} segments of shared memory left, {count} bytes differ"
        + ("" if passed else f": {output}"),
        {"seconds": seconds, "differing_bytes": count},
    )


def _shared_since(before: set[pathlib.Path]) -> set[pathlib.Path]:
    """Returns new segments of shared memory that are not removed within 15 s."""
    new, deadline = set(_listed(SHARED_MEMORY)) - before, time.monotonic() + 15
    while new and time.monotonic() < deadline:
        time.sleep(0.1)
        new &= set(_listed(SHARED_MEMORY))
    return new


def _left_after(group: int, seconds: float) -> list[int]:
    """Returns the processes of a group that do not end within some seconds."""
    deadline = time.monotonic() + seconds
    while (left := runs.alive(group)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def killed_with_workers(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """Kills only the main process: its workers must end and free their shared memory.

    Args:
      bench: Not used.
      scratch: An empty folder.
      rng: Chooses the delay.
    """
    before = set(_listed(SHARED_MEMORY))
    run = runs.start(scratch / "orphaned", 10_000, "--config.data.num_workers=2")
    run.until(lambda: run.rows() > 0)
    time.sleep(float(rng.uniform(0, 1)))
    processes = len(runs.alive(run.process.pid))
    run.process.kill()
    run.process.wait()
    began = time.monotonic()
    orphans = _left_after(run.process.pid, 10.0)
    seconds = time.monotonic() - began
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    shared = _shared_since(before)
    return Outcome(
        processes > 1 and not orphans and not shared,
        f"{len(orphans)} of {processes} processes left after {seconds:.1f} s, "
        f"{len(shared)} segments of shared memory",
        {"seconds": seconds},
    )


def disk_full(bench: Bench, scratch: pathlib.Path, rng: np.random.Generator) -> Outcome:
    """Limits the size of files, which fails as a full disk does, then resumes.

    The run must report the failed save and exit with code 1. After it has resumed
    without the limit, no byte may differ.

    Args:
      bench: Has the run without the limit.
      scratch: An empty folder.
      rng: Chooses the limit.
    """
    run = runs.start(scratch / "full", bench.steps)
    checkpoint = Workdir(run.workdir).checkpoints / str(runs.EVERY)
    run.until(checkpoint.is_dir)
    # Parameters are larger than the limit, and the metrics soon are.
    limit = int(rng.integers(1024, 8192))
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    began = time.monotonic()
    code = run.wait(60)
    seconds, output = time.monotonic() - began, run.output()
    reported = "could not be written" in output or "the disk is full" in output
    runs.finish(scratch / "full", bench.steps)
    count = bench.differing_bytes(scratch / "full")
    return Outcome(
        code == 1 and reported and "Traceback" not in output and count == 0,
        f"exit code {code} after {seconds:.1f} s, {count} bytes differ: "
        f"{output.strip().splitlines()[-1:]}",
        {"seconds": seconds, "differing_bytes": count},
    )
