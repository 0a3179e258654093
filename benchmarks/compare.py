"""Trains the rows of a table under one budget, and prints accuracy, cost and size.

    python -m benchmarks.compare pyramid --root=DIR --workdir=runs/pyramid
    python -m benchmarks.compare pyramid_finetuned --root=DIR --weights=FILE --workdir=…
    python -m benchmarks.compare pooling --root=DIR --weights=FILE --workdir=…

Every row is a run of `python -m fpn_jax.main`, once for each seed, in a workdir of its
own: a command that was stopped goes on where it stood, and one that is through only
prints. Accuracy is that of the last step on the validate split, never of the best one.
`--speed` measures the train step of all rows instead, in turns.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import stepping, timing
from benchmarks.stepping import Stepping
from configs.pooling import POOLINGS

PYRAMIDS = (
    *("identity", "image_pyramid", "fpn_flatten", "fpn", "spp", "ppm", "aspp"),
    "covariance",
)


class Row(NamedTuple):
    """A line of a table: one training, but for its seed."""

    name: str
    arguments: tuple[str, ...]


def rows(suite: str, root: str, weights: str | None) -> list[Row]:
    """Returns the lines of a table."""
    of_all = (
        f"--config.data.root={root}",
        "--config.train.evaluate_every_steps=100000",
    )
    small = (
        *of_all,
        "--config.data.image_size=64",
        "--config.backbone.width=32",
        "--config.mix.cutmix_alpha=0.0",
        "--config.optimizer.warmup_steps=60",
        "--config.train.ema_decay=0.99",
        "--config.train.epochs=16",
    )
    tuned = (
        *of_all,
        f"--config.pretrained.path={weights}",
        "--config.pretrained.recipe=tensorflow",
        "--config.data.image_size=96",
        "--config.train.epochs=5",
    )
    if suite == "pyramid":
        return [
            Row(name, (f"--config=configs/{name}.py:folder", *small))
            for name in PYRAMIDS
        ]
    if suite == "pyramid_finetuned":
        return [
            Row(name, (f"--config=configs/finetune.py:{name}", *tuned))
            for name in PYRAMIDS
        ]
    return [
        Row(name, (f"--config=configs/pooling.py:{name}", *tuned)) for name in POOLINGS
    ]


def train(row: Row, seed: int, directory: Path, cores: set[int]) -> dict[str, float]:
    """Trains one row on some cores, or reads what it gave; returns its figures."""
    result = directory / "result.json"
    cache = directory.parent.absolute() / "compiled"
    command = [sys.executable, "-m", "fpn_jax.main", *row.arguments]
    command += [f"--workdir={directory}", f"--config.train.seed={seed}"]
    if result.exists():
        before = json.loads(result.read_text())["command"]
        if before != command[1:]:
            sys.exit(f"{directory} was trained by another command: {' '.join(before)}")
        return json.loads(result.read_text())
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (directory / "log.txt").open("a") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            # Seeds differ in numbers alone: the step is compiled once for all.
            env={"JAX_COMPILATION_CACHE_DIR": str(cache), **os.environ},
        )
        # Before its libraries have counted the cores and started their threads.
        os.sched_setaffinity(process.pid, cores)
        # Also what it used; the object must be told that it has ended.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # A run that was stopped ends well, but before its report.
    if status or not (directory / "report.html").exists():
        tail = (directory / "log.txt").read_text().splitlines()[-2:]
        sys.exit(f"{row.name}, seed {seed}: {' '.join(tail)}")
    figures = _figures(directory)
    figures["peak_memory_mib"] = usage.ru_maxrss / 1024
    figures["seconds"] = time.monotonic() - began
    figures["command"] = command[1:]
    result.write_text(json.dumps(figures) + "\n")
    return figures


def train_all(
    table: Sequence[Row], seeds: int, workdir: Path, jobs: int
) -> Iterator[dict[str, object]]:
    """Trains every row and seed, `jobs` runs at a time; yields the lines of the table.

    Each run has an equal share of the cores to itself: two runs of one core each are
    through in little more time than one run of two.
    """
    cores = sorted(os.sched_getaffinity(0))
    free: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(set(cores[job::jobs]))

    def run(row: Row, seed: int) -> dict[str, float]:
        mine = free.get()
        try:
            return train(row, seed, workdir / f"{row.name}_{seed}", mine)
        finally:
            free.put(mine)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        runs = {
            row.name: [pool.submit(run, row, seed) for seed in range(seeds)]
            for row in table
        }
        try:
            for name, futures in runs.items():
                yield {"row": name, **_summary([it.result() for it in futures])}
        except BaseException:
            # Ctrl-C reached the runs too: they save, and say so in their logs.
            pool.shutdown(cancel_futures=True)
            raise


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    accuracies = [figures["accuracy"] for figures in runs]
    return {
        "seeds": len(runs),
        "accuracy": statistics.mean(accuracies),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "peak_memory_mib": max(figures["peak_memory_mib"] for figures in runs),
        "seconds": statistics.median(figures["seconds"] for figures in runs),
    }


def _figures(directory: Path) -> dict[str, float]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    evaluated = [record for record in map(json.loads, lines) if _is_evaluation(record)]
    return {
        "accuracy": evaluated[-1]["validate/accuracy"],
        "calibration_error": evaluated[-1]["validate/calibration_error"],
    }


def _is_evaluation(record: dict) -> bool:
    return "validate/accuracy" in record


def speed(table: Sequence[Row], repeats: int) -> dict[str, dict[str, float]]:
    """Returns row → images a second of the train step and parameters; in turns."""
    # What a config says about itself is no line of the table.
    with contextlib.redirect_stdout(sys.stderr):
        made = {row.name: Stepping(row.arguments) for row in table}
    calls = {name: lambda it=it: it.run(2) for name, it in made.items()}
    taken = timing.in_turns(calls, repeats)
    return {
        name: {
            "images_per_second": 2 * it.images / statistics.median(taken[name]),
            "slowest": 2 * it.images / max(taken[name]),
            "fastest": 2 * it.images / min(taken[name]),
            "parameters": it.parameters,
        }
        for name, it in made.items()
    }


def main() -> None:
    """Prints the table that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    suites = ("pyramid", "pyramid_finetuned", "pooling")
    parser.add_argument("suite", choices=suites)
    parser.add_argument("--root", required=True, help="Train/Validate × Cat/Dog")
    parser.add_argument("--weights", help="of mobilenet_v2, where it is fine-tuned")
    parser.add_argument("--workdir", type=Path, help="of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--repeats", type=int, default=7, help="of --speed")
    given = parser.parse_args()
    if not 1 <= given.jobs <= len(os.sched_getaffinity(0)):
        parser.error(f"--jobs={given.jobs} is not one a core, or fewer")
    if given.suite != "pyramid" and not given.weights:
        parser.error(f"{given.suite} needs --weights")
    table = rows(given.suite, given.root, given.weights)
    if given.speed:
        stepping.start()
        for name, figures in speed(table, given.repeats).items():
            print(json.dumps({"suite": given.suite, "row": name, **figures}))
        return
    if given.workdir is None:
        parser.error("give --workdir, or --speed")
    for line in train_all(table, given.seeds, given.workdir, given.jobs):
        print(json.dumps({"suite": given.suite, **line}), flush=True)


if __name__ == "__main__":
    main()
