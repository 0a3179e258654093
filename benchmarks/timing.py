"""Fair timing: contenders in turns, medians with their spread, a JSON line per row.

The speed of a machine changes by tens of per cent within minutes, so only times of the
same minutes can be compared: contenders run A B A B, and the ratio of their medians is
the result.
"""

import importlib.metadata
import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = pathlib.Path(__file__).parent / "results"


def in_turns(
    calls: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Returns name → seconds of each round.

    Args:
      calls: Name → function to time, which returns when its work is done.
      repeats: Number of rounds; in each round every function runs once.
      warm_up: Number of rounds before them, which are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warm_up, repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= 0:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Returns the median, the shortest and the longest of some times."""
    return {
        "median": statistics.median(seconds),
        "shortest": min(seconds),
        "longest": max(seconds),
    }


def machine() -> dict[str, Any]:
    """Returns the names of the device and processor, and versions of packages."""
    import jax

    device = jax.devices()[0]
    versions = {}
    for package in ("jax", "jaxlib", "flax", "numpy", "torch", "torchvision"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    kinds = [
        line.partition(":")[2].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "device": f"{jax.device_count()} × {device.device_kind} ({device.platform})",
        "processor": f"{len(kinds)} × {kinds[0]}" if kinds else platform.processor(),
        "python": platform.python_version(),
        **versions,
    }


class Report:
    """Rows of one benchmark: a table on standard output, and a JSON line per row.

    Args:
      name: Name of the benchmark.
      out: File of the JSON lines; None is `benchmarks/results/NAME.jsonl`. Lines are
        appended, and each line has the machine and the versions.
    """

    def __init__(self, name: str, out: pathlib.Path | None = None):
        self.name = name
        self._out = out or RESULTS / f"{name}.jsonl"
        self._machine = machine()
        self._rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        """Adds a row, and writes it at once, because a later one may fail."""
        self._rows.append(row)
        self._out.parent.mkdir(parents=True, exist_ok=True)
        line = {"benchmark": self.name, **row, "machine": self._machine}
        with self._out.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        print(", ".join(f"{k} {_shown(v)}" for k, v in row.items()), flush=True)

    def show(self) -> None:
        """Prints all rows as a table."""
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        table = Table(*columns, title=f"{self.name}, {self._machine['device']}")
        for row in self._rows:
            table.add_row(*(_shown(row.get(column, "")) for column in columns))
        # May be wider than the terminal, so that no number is cut off.
        Console(width=250).print(table)
        print(f"rows written to {self._out}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
