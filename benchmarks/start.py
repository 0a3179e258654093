"""Seconds from a command to its first step: cold, with the cache, resumed; imports.

    python -m benchmarks.start [--root=DIR] [--case=resnet50_fpn] [--repeats=3]

Every start is a process of its own, that of `python -m fpn_jax.main`, in a workdir of
its own; on photographs where `DIR` holds Train and Validate × Cat/Dog, otherwise on
drawn animals, whose drawing takes from the same cores. `cold` begins with an empty
compilation cache, `warm` with the one that it left, `resumed` continues the warm run,
whose checkpoint is there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import stepping, timing
from benchmarks.train_step import CASES, Case, arguments_of

IMPORTS = ("fpn_jax.main", "fpn_jax.run", "jax")


def seconds_to_step(arguments: list[str], workdir: Path, cache: Path) -> float:
    """Returns the seconds from a command to the record of the first step it takes.

    Args:
      arguments: Of `python -m fpn_jax.main`, for a run that this stops.
      workdir: Where it trains; what lies there already, it goes on with.
      cache: Folder of the compilation cache.
    """
    records = workdir / "metrics.jsonl"
    before = len(records.read_text().splitlines()) if records.exists() else 0
    command = [sys.executable, "-m", "fpn_jax.main", *arguments]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
    )
    while process.poll() is None:
        # The bytes of a line may still be on their way; a whole one ends.
        if records.exists() and records.read_text().count("\n") > before:
            taken = time.perf_counter() - began
            process.terminate()
            if process.wait():
                break
            return taken
        time.sleep(0.02)
    sys.exit(f"the run failed: {' '.join(command)}")


def starts(case: Case, root: str | None, repeats: int) -> dict[str, list[float]]:
    """Returns kind of start → seconds, one number a repeat."""
    taken: dict[str, list[float]] = {"cold": [], "warm": [], "resumed": []}
    arguments = [
        *arguments_of(case, "float32"),
        "--config.optimizer.warmup_steps=0",
        "--config.optimizer.learning_rate=1e-4",
        *stepping.data_of(root),
        "--config.train.log_every_steps=1",
        "--config.train.evaluate_every_steps=1000",
        "--config.train.total_steps=100000",
    ]
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for kind, workdir in (
                ("cold", "first"),
                ("warm", "second"),
                ("resumed", "second"),
            ):
                seconds = seconds_to_step(arguments, root / workdir, root / "cache")
                taken[kind].append(seconds)
    return taken


def import_seconds(module: str) -> float:
    """Returns the seconds that a fresh interpreter needs to import a module."""
    code = (
        "import time; began = time.perf_counter()\n"
        f"import {module}\n"
        "print(time.perf_counter() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="resnet50_fpn")
    parser.add_argument("--root", help="holds Train and Validate × Cat/Dog")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows = {
        f"import {module}": [import_seconds(module) for _ in range(given.repeats)]
        for module in IMPORTS
    }
    rows |= starts(CASES[given.case], given.root, given.repeats)
    report = timing.Report("start")
    for what, seconds in rows.items():
        spread = timing.spread(seconds)
        report.add(
            case=given.case,
            data="photographs" if given.root else "drawn",
            what=what,
            seconds=spread["median"],
            shortest=spread["shortest"],
            longest=spread["longest"],
        )
    report.show()


if __name__ == "__main__":
    main()
