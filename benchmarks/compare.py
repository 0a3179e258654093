"""Trains the rows of a table with one budget; prints accuracy, time and memory.

    python -m benchmarks.compare pyramid --root=DIR --workdir=runs/pyramid
    python -m benchmarks.compare pyramid_finetuned --root=DIR --weights=FILE --workdir=…
    python -m benchmarks.compare pooling --root=DIR --weights=FILE --workdir=…

Every row is trained by `python -m fpn_jax.main`, once for each seed, each time in a
workdir of its own. Run a stopped command again to resume; runs that have ended are not
repeated. The accuracy is that of the last step on the validation split, not that of the
best checkpoint. `--speed` measures the train steps of all rows in turns instead.
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
    """A row of a table.

    Attributes:
      name: Name of the row.
      arguments: Command line of the training, without workdir and seed.
    """

    name: str
    arguments: tuple[str, ...]


def rows(suite: str, root: str, weights: str | None) -> list[Row]:
    """Returns the rows of a table.

    Args:
      suite: `pyramid`, `pyramid_finetuned` or `pooling`.
      root: Folder of the photographs.
      weights: File of weights, where the rows are fine-tuned.
    """
    shared = (
        f"--config.data.root={root}",
        "--config.train.evaluate_every_steps=100000",
    )
    small = (
        *shared,
        "--config.data.image_size=64",
        "--config.backbone.width=32",
        "--config.mix.cutmix_alpha=0.0",
        "--config.optimizer.warmup_steps=60",
        "--config.train.ema_decay=0.99",
        "--config.train.epochs=16",
    )
    tuned = (
        *shared,
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
    """Returns the results of one run, which trains unless it has ended before.

    Args:
      row: What to train.
      seed: Seed of the run.
      directory: Workdir of the run.
      cores: Cores that the process may use.

    Returns:
      Accuracy, calibration error, peak memory, seconds, and the command.
    """
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
            # The step of all seeds is the same program, so it is compiled once.
            env={"JAX_COMPILATION_CACHE_DIR": str(cache), **os.environ},
        )
        # Set now, before its libraries count the cores and start their threads.
        os.sched_setaffinity(process.pid, cores)
        # wait4 also returns the peak memory, but Popen does not notice the end.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # A stopped run exits with code 0, but has no report.
    if status or not (directory / "report.html").exists():
        tail = (directory / "log.txt").read_text().splitlines()[-2:]
        sys.exit(f"{row.name}, seed {seed}: {' '.join(tail)}")
    results = _last_evaluation(directory)
    results["peak_memory_mib"] = usage.ru_maxrss / 1024
    results["seconds"] = time.monotonic() - began
    results["command"] = command[1:]
    result.write_text(json.dumps(results) + "\n")
    return results


def train_all(
    table: Sequence[Row], seeds: int, workdir: Path, jobs: int
) -> Iterator[dict[str, object]]:
    """Trains every row with every seed; yields a summary of each row.

    Each run has an equal share of the cores to itself: two runs with one core each take
    little more time than one run with two cores.

    Args:
      table: The rows.
      seeds: Number of seeds.
      workdir: Folder of the workdirs.
      jobs: Number of runs at a time.
    """
    cores = sorted(os.sched_getaffinity(0))
    free: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(set(cores[job::jobs]))

    def run(row: Row, seed: int) -> dict[str, float]:
        share = free.get()
        try:
            return train(row, seed, workdir / f"{row.name}_{seed}", share)
        finally:
            free.put(share)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        runs = {
            row.name: [pool.submit(run, row, seed) for seed in range(seeds)]
            for row in table
        }
        try:
            for name, futures in runs.items():
                yield {"row": name, **_summary([run.result() for run in futures])}
        except BaseException:
            # The runs receive Ctrl-C as well, and save; their logs report it.
            pool.shutdown(cancel_futures=True)
            raise


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    accuracies = [run["accuracy"] for run in runs]
    return {
        "seeds": len(runs),
        "accuracy": statistics.mean(accuracies),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "peak_memory_mib": max(run["peak_memory_mib"] for run in runs),
        "seconds": statistics.median(run["seconds"] for run in runs),
    }


def _last_evaluation(directory: Path) -> dict[str, float]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    entries = map(json.loads, lines)
    last = [entry for entry in entries if "validate/accuracy" in entry][-1]
    return {key: last[f"validate/{key}"] for key in ("accuracy", "calibration_error")}


def speed(table: Sequence[Row], repeats: int) -> dict[str, dict[str, float]]:
    """Returns row → images per second of the train step, and parameters.

    Args:
      table: The rows, which are measured in turns.
      repeats: Number of rounds.
    """
    # Standard output is for the table, so notes about the configs go elsewhere.
    with contextlib.redirect_stdout(sys.stderr):
        steppings = {row.name: Stepping(row.arguments) for row in table}
    calls = {name: lambda step=step: step.run(2) for name, step in steppings.items()}
    seconds = timing.in_turns(calls, repeats)
    return {
        name: {
            "images_per_second": 2 * step.images / statistics.median(seconds[name]),
            "slowest": 2 * step.images / max(seconds[name]),
            "fastest": 2 * step.images / min(seconds[name]),
            "parameters": step.parameters,
        }
        for name, step in steppings.items()
    }


def main() -> None:
    """Prints the table that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    suites = ("pyramid", "pyramid_finetuned", "pooling")
    parser.add_argument("suite", choices=suites)
    parser.add_argument(
        "--root", required=True, help="folder with Train and Validate × Cat and Dog"
    )
    parser.add_argument(
        "--weights", help="weights of mobilenet_v2, for the fine-tuned suites"
    )
    parser.add_argument("--workdir", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--speed", action="store_true", help="measure the train steps instead"
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds of --speed")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if not 1 <= given.jobs <= cores:
        parser.error(f"--jobs={given.jobs}: take 1 to {cores}, the number of cores")
    if given.suite != "pyramid" and not given.weights:
        parser.error(f"{given.suite} needs --weights")
    table = rows(given.suite, given.root, given.weights)
    if given.speed:
        stepping.start()
        for name, speeds in speed(table, given.repeats).items():
            print(json.dumps({"suite": given.suite, "row": name, **speeds}))
        return
    if given.workdir is None:
        parser.error("give --workdir or --speed")
    for line in train_all(table, given.seeds, given.workdir, given.jobs):
        print(json.dumps({"suite": given.suite, **line}), flush=True)


if __name__ == "__main__":
    main()
