"""Causes every fault several times, and prints how often the training survived it.

`python -m benchmarks.faults --only=PART --scale=0.1`
"""

import argparse
import pathlib
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
from absl import flags, logging

from benchmarks import timing
from benchmarks.faults import (
    disks,
    ends,
    long_run,
    nonfinite,
    pictures,
    shapes,
    untrusted,
)
from benchmarks.faults.runs import Bench

MOVES = (
    ((1, 8), (1, 1)),
    ((1, 8), (1, 2)),
    ((1, 8), (1, 4)),
    ((2, 1), (1, 1)),
    ((1, 1), (2, 1)),
    ((2, 2), (1, 8)),
)
"""Numbers of processes and devices that save, and those that resume."""

DAMAGES = dict(zip(disks.DAMAGES, (300, 60, 60, 20, 1), strict=True))
"""Damage of a checkpoint → number of attempts."""


def faults() -> Iterator[tuple]:
    """Yields name, number of attempts, and attempt with its arguments of each fault."""
    yield "control: another seed", 1, ends.another_seed
    yield "kill -9, five times a run", 10, ends.killed
    for number in (signal.SIGTERM, signal.SIGINT):
        yield f"{number.name}, two workers", 3, ends.asked_to_stop, number
    yield "workers of a run that is killed", 3, ends.killed_with_workers
    yield "disk full", 3, ends.disk_full
    for damage, times in DAMAGES.items():
        yield f"checkpoint: {damage}", times, disks.damaged, damage
    for before, after in MOVES:
        words = " → ".join(f"{p} × {d}" for p, d in (before, after))
        name = f"saved and resumed by processes × devices {words}"
        yield name, 1, shapes.resumed_elsewhere, before, after
    yield "a data worker killed", 3, pictures.worker_killed
    for policy in ("stop", "skip"):
        for workers in (0, 1):
            end = f"{policy}, {workers} workers"
            yield (
                f"a read that stalls, {end}",
                2,
                pictures.stalled_read,
                policy,
                workers,
            )
            yield f"a file deleted, {end}", 2, pictures.deleted_file, policy, workers
    yield "corrupted files", 500, pictures.corruption
    yield "odd names", 1, pictures.odd_names
    yield "planted copies", 20, pictures.planted_copies
    for policy in ("stop", "skip"):
        yield f"a loss that explodes, {policy}", 2, nonfinite.exploding, policy
    for name in untrusted.WEIGHTS:
        yield f"weights: {name}", 1, untrusted.weights, name
    for name in untrusted.CONFIGS:
        yield f"config: {name}", 1, untrusted.config, name
    yield "10,000 steps", 1, long_run.flat, 10_000


def main() -> int:
    """Runs the faults; returns 1 if an attempt failed."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__)
    parser.add_argument(
        "--only", default="", help="run faults whose name contains this text"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor of the number of attempts"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the attempts")
    parser.add_argument(
        "--root", type=pathlib.Path, help="folder of photographs to corrupt"
    )
    given = parser.parse_args()
    # grain reads absl's flags when it creates iterators.
    flags.FLAGS.mark_as_parsed()
    # Orbax warns whenever a folder is opened only for reading.
    logging.set_verbosity(logging.ERROR)
    report, all_passed = timing.Report("faults"), True
    with tempfile.TemporaryDirectory(prefix="fpn_jax_faults_") as folder:
        bench = Bench(pathlib.Path(folder), photographs=given.root)
        for fault, (name, times, attempt, *arguments) in enumerate(faults()):
            if given.only not in name:
                continue
            values, passed, times = {}, 0, max(1, round(times * given.scale))
            for number in range(times):
                scratch = bench.scratch / f"{fault}_{number}"
                scratch.mkdir()
                rng = np.random.default_rng([given.seed, fault, number])
                outcome = attempt(bench, scratch, rng, *arguments)
                passed += outcome.passed
                print(f"{name}: {outcome.message}", file=sys.stderr, flush=True)
                for key, value in outcome.values.items():
                    values.setdefault(key, []).append(value)
            all_passed = all_passed and passed == times
            row = {f"{key}_median": statistics.median(v) for key, v in values.items()}
            row |= {f"{key}_largest": max(v) for key, v in values.items()}
            # The stored rows of results/faults.jsonl name this number `held`.
            report.add(fault=name, held=f"{passed}/{times}", **row)
    report.show()
    return 0 if all_passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
