"""Seconds from a command to its first step: cold, warm and resumed; seconds of imports.

    python -m benchmarks.start [--root=DIR] [--case=resnet50_fpn] [--repeats=3]

Every start is a process of `python -m fpn_jax.main`. It trains on the photographs of
`DIR`, which has Train and Validate × Cat and Dog; without `--root`, on drawn animals,
which are drawn by the same cores. `cold` begins with an empty compilation cache, `warm`
trains in a new workdir with the cache of `cold`, and `resumed` resumes the run of
`warm` from its checkpoint.
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

IMPORTS = ("fpn_jax.main", "fpn_jax.modes.train", "jax")
"""Modules whose import is timed."""


def seconds_to_step(arguments: list[str], workdir: Path, cache: Path) -> float:
    """Returns the seconds from a command to the metrics of its first step.

    Args:
      arguments: Arguments of `python -m fpn_jax.main`; the run is stopped afterwards.
      workdir: Where it trains; a run that is there is resumed.
      cache: Folder of the compilation cache.
    """
    metrics = workdir / "metrics.jsonl"
    before = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    command = [sys.executable, "-m", "fpn_jax.main", *arguments]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
    )
    while process.poll() is None:
        # A line without its end is not complete yet.
        if metrics.exists() and metrics.read_text().count("\n") > before:
            taken = time.perf_counter() - began
            process.terminate()
            if process.wait():
                break
            return taken
        time.sleep(0.02)
    sys.exit(f"the run failed: {' '.join(command)}")


def starts(case: Case, root: str | None, repeats: int) -> dict[str, list[float]]:
    """Returns kind of start → seconds of each repeat.

    Args:
      case: The network and the batch.
      root: Folder of the photographs; None trains on drawn animals.
      repeats: Number of starts of each kind.
    """
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
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for kind, workdir in (
                ("cold", "first"),
                ("warm", "second"),
                ("resumed", "second"),
            ):
                seconds = seconds_to_step(arguments, folder / workdir, folder / "cache")
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
    parser.add_argument("--root", help="folder with Train and Validate × Cat and Dog")
    parser.add_argument("--repeats", type=int, default=3, help="starts of each kind")
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
