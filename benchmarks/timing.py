"""Fair timing: contenders in turns, medians with their spread, one line a row.

Machines drift by tens of per cent within minutes, so a time means something only beside
one that was taken in the same minute: contenders run A B A B, and what is quoted is the
ratio of their medians.
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
    """Returns the seconds that each call took, one number a round.

    Args:
      calls: Name → what to time; returns only when its work is done.
      repeats: Rounds, in each of which every call runs once.
      warm_up: Rounds before, which are not counted.
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
    """Returns the median of some times, the shortest and the longest."""
    return {
        "median": statistics.median(seconds),
        "shortest": min(seconds),
        "longest": max(seconds),
    }


def machine() -> dict[str, Any]:
    """Returns the machine and the versions in words."""
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
    """Rows of one benchmark: a table on standard output, and a JSON line each.

    Args:
      name: The benchmark's.
      out: File of the JSON lines; None is `benchmarks/results/NAME.jsonl`. Lines of
        earlier calls stay: every line carries the machine and the versions.
    """

    def __init__(self, name: str, out: pathlib.Path | None = None):
        self._name = name
        self._out = out or RESULTS / f"{name}.jsonl"
        self._machine = machine()
        self._rows: list[dict[str, Any]] = []

    def add(self, **figures: Any) -> None:
        """Takes a row, and writes it at once: a later one may fail."""
        self._rows.append(figures)
        self._out.parent.mkdir(parents=True, exist_ok=True)
        line = {"benchmark": self._name, **figures, "machine": self._machine}
        with self._out.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        print(", ".join(f"{k} {_shown(v)}" for k, v in figures.items()), flush=True)

    def show(self) -> None:
        """Prints all rows as a table."""
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        table = Table(*columns, title=f"{self._name}, {self._machine['device']}")
        for row in self._rows:
            table.add_row(*(_shown(row.get(column, "")) for column in columns))
        # Wider than a terminal if need be: cut figures are of no use.
        Console(width=250).print(table)
        print(f"the rows are in {self._out}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
