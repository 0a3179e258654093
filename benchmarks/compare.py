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
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import stepping, timing
from benchmarks.stepping import Stepping
from configs.pooling import POOLINGS

PYRAMIDS = (
    *("identity", "image_pyramid", "fpn_flatten", "fpn", "spp", "ppm", "aspp"),
    *("covariance", "fpn_ppm"),
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
        "--config.train.epochs=24",
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


def train(row: Row, seed: int, directory: Path) -> dict[str, float]:
    """Trains one row, or reads what it gave; returns its figures."""
    result = directory / "result.json"
    cache = directory.parent.absolute() / "compiled"
    command = [sys.executable, "-m", "fpn_jax.main", *row.arguments]
    command += [f"--workdir={directory}", f"--config.train.seed={seed}"]
    if result.exists():
        before = json.loads(result.read_text())["command"]
        if before != command[1:]:
            sys.exit(f"{directory} was trained by another command: {' '.join(before)}")
    else:
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
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except KeyboardInterrupt:
                # The run was told too: it saves, and says so in its log.
                status = process.wait()
        # A run that was stopped ends well, but before its report.
        if status or not (directory / "report.html").exists():
            tail = (directory / "log.txt").read_text().splitlines()[-2:]
            sys.exit(f"{row.name}, seed {seed}: {' '.join(tail)}")
        figures = _figures(directory)
        figures["peak_memory_mib"] = usage.ru_maxrss / 1024
        figures["seconds"] = time.monotonic() - began
        figures["command"] = command[1:]
        result.write_text(json.dumps(figures) + "\n")
    return json.loads(result.read_text())


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
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--repeats", type=int, default=7, help="of --speed")
    given = parser.parse_args()
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
    for row in table:
        runs = [
            train(row, seed, given.workdir / f"{row.name}_{seed}")
            for seed in range(given.seeds)
        ]
        accuracies = [figures["accuracy"] for figures in runs]
        summed = {
            "accuracy": statistics.mean(accuracies),
            "lowest": min(accuracies),
            "highest": max(accuracies),
            "peak_memory_mib": max(figures["peak_memory_mib"] for figures in runs),
            "seconds": statistics.median(figures["seconds"] for figures in runs),
        }
        shown = {"suite": given.suite, "row": row.name, "seeds": len(runs), **summed}
        print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
