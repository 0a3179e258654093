"""Ends that nobody planned: kill -9 at any moment, SIGTERM, Ctrl-C, a full disk."""

import itertools
import os
import pathlib
import resource
import signal
import time

import numpy as np

from benchmarks.faults import runs, shapes
from benchmarks.faults.runs import Bench, Outcome

SHARED_MEMORY = pathlib.Path("/dev/shm")


def _begins_save(run: runs.Run) -> bool:
    folder = run.workdir / "checkpoints"
    return any("orbax-checkpoint-tmp" in path.name for path in _listed(folder))


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _evaluates(run: runs.Run) -> bool:
    path = run.workdir / "metrics.jsonl"
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
    "while it saves": _begins_save,
    "while it evaluates": _evaluates,
}
"""Name of a moment → whether it has come."""


def killed(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, kills: int = 5
) -> Outcome:
    """Kills one run again and again, then lets it end: every byte is as without.

    Args:
      bench: The run without.
      scratch: An empty folder.
      rng: Chooses the first moment, and how long after it.
      kills: How often.
    """
    workdir, met = scratch / "killed", []
    first = int(rng.integers(len(MOMENTS)))
    names = itertools.islice(itertools.cycle(MOMENTS), first, first + kills)
    for name in names:
        run = runs.start(workdir, bench.steps)
        latest = 4.0 if name == "while it starts" else 0.05
        had = run.rows()
        come = run.until(
            lambda run=run, had=had, name=name: (
                name == "while it starts" or (run.rows() != had and MOMENTS[name](run))
            )
        )
        time.sleep(float(rng.uniform(0, latest)))
        run.kill()
        met.append(name if come else "at its end")
    said = runs.finish(workdir, bench.steps)
    count = bench.differing_bytes(workdir)
    return Outcome(
        count == 0 and "Traceback" not in said,
        f"killed {', '.join(met)}: {count} bytes differ",
        {"kills": kills, "differing_bytes": count},
    )


def another_seed(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """The control: another seed must differ, or the comparisons are worth nothing."""
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
    """Sends a signal to a run with workers, as a terminal does: to all its processes.

    It must save, end with 0, say how to go on, and leave no process and no shared
    memory behind; resumed, it must be as without.
    """
    before = set(_listed(SHARED_MEMORY))
    workers = "--config.data.num_workers=2"
    run = runs.start(scratch / "stopped", bench.steps, workers)
    run.until(lambda: run.rows() > 2 * runs.EVERY)
    time.sleep(float(rng.uniform(0, 0.3)))
    asked = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(run.process.pid, number)
    else:
        run.process.send_signal(number)
    code = run.ended(60)
    seconds = time.monotonic() - asked
    at_once = run.said()
    orphans = _gone_within(run.process.pid, 5.0)
    shared = _shared_since(before)
    runs.finish(scratch / "stopped", bench.steps, workers)
    # The number of workers stands in the config and changes nothing else.
    count = bench.differing_bytes(scratch / "stopped")
    held = (
        code == 0
        and "the same command goes on" in at_once
        and "Traceback" not in at_once
        and not orphans
        and not shared
        and count == 0
    )
    return Outcome(
        held,
        f"{number.name}: exit code {code} after {seconds:.1f} s, "
        f"{len(orphans)} orphans, "
        f"{len(shared)} pieces of shared memory left, {count} bytes differ"
        + ("" if held else f": {at_once}"),
        {"seconds": seconds, "differing_bytes": count},
    )


def _shared_since(before: set[pathlib.Path]) -> set[pathlib.Path]:
    """Returns pieces of shared memory that are there, were not, and stay."""
    new, deadline = set(_listed(SHARED_MEMORY)) - before, time.monotonic() + 15
    while new and time.monotonic() < deadline:
        time.sleep(0.1)
        new &= set(_listed(SHARED_MEMORY))
    return new


def _gone_within(group: int, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := runs.alive(group)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def killed_with_workers(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """Kills a run alone; its workers must notice and end, with their shared memory."""
    before = set(_listed(SHARED_MEMORY))
    run = runs.start(scratch / "orphaned", 10_000, "--config.data.num_workers=2")
    run.until(lambda: run.rows() > 0)
    time.sleep(float(rng.uniform(0, 1)))
    had = len(runs.alive(run.process.pid))
    run.process.kill()
    run.process.wait()
    began = time.monotonic()
    orphans = _gone_within(run.process.pid, 10.0)
    seconds = time.monotonic() - began
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    shared = _shared_since(before)
    return Outcome(
        had > 1 and not orphans and not shared,
        f"of {had} processes {len(orphans)} left after {seconds:.1f} s, "
        f"{len(shared)} pieces of shared memory",
        {"seconds": seconds},
    )


def disk_full(bench: Bench, scratch: pathlib.Path, rng: np.random.Generator) -> Outcome:
    """Lets no file grow any more, as on a full disk, then frees the disk.

    The save that fails must be told of at the next step, the checkpoint before it be
    whole, and the resumed run be as without.
    """
    run = runs.start(scratch / "full", bench.steps)
    run.until(lambda: (run.workdir / "checkpoints" / str(runs.EVERY)).is_dir())
    # Parameters are larger than this, and the text of the records is longer soon.
    limit = int(rng.integers(1024, 8192))
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    began = time.monotonic()
    code = run.ended(60)
    seconds, said = time.monotonic() - began, run.said()
    told = "could not be written" in said or "nothing more can be written" in said
    runs.finish(scratch / "full", bench.steps)
    count = bench.differing_bytes(scratch / "full")
    return Outcome(
        code == 1 and told and "Traceback" not in said and count == 0,
        f"exit code {code} after {seconds:.1f} s, {count} bytes differ: "
        f"{said.strip().splitlines()[-1:]}",
        {"seconds": seconds, "differing_bytes": count},
    )
