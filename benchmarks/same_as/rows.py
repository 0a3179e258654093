"""What a run leaves behind, as named rows of text, and the comparison of two runs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

Rows = dict[str, str]
"""Name of a number or an array → the number, or a digest of the array."""

TIMES = ("train/images_per_second",)
"""Keys of `metrics.jsonl` that are measured times."""
PARTS = ("step", "params", "batch_stats", "opt_state", "ema", "rng")
"""Parts of a checkpoint that are compared."""
INFORMATION = ("size of the export",)
"""Measurements that are shown and not compared."""
SHARED_KEYS = ("evaluation",)
"""Measurements that are compared only in the rows that both sides have."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of one measurement on two sides.

    Attributes:
      rows: Number of rows that were compared.
      differences: A line for each row that differs or is missing on one side.
      notes: Lines that are only information.
    """

    rows: int
    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()


def compare(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Comparison:
    """Returns how the rows of the other commit (`old`) and of this tree differ.

    Args:
      what: Name of the measurement, which may be in `INFORMATION` or `SHARED_KEYS`.
      old: Rows of the other commit.
      new: Rows of this tree.
    """
    shared = [name for name in old if name in new]
    changed = [
        f"{name}: {old[name]} there, {new[name]} here"
        for name in shared
        if old[name] != new[name]
    ]
    missing = [f"{name}: only there" for name in old if name not in new]
    missing += [f"{name}: only here" for name in new if name not in old]
    if what in INFORMATION:
        return Comparison(0, (), (*changed, *missing))
    if not shared:
        return Comparison(0, ("the two sides have no row in common", *missing))
    if what in SHARED_KEYS:
        return Comparison(len(shared), tuple(changed), tuple(missing))
    return Comparison(len(shared), (*changed, *missing))


def batches(path: Path, training: int) -> Rows:
    """Returns the batches of a training and of the first validation pass after it.

    Args:
      path: File that `probe.py batches` wrote.
      training: Number of batches before the first validation pass.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    validation = lines[training:]
    # A later pass over the same records begins with the same batch.
    if validation[:1] and validation[0] in validation[1:]:
        validation = validation[: validation.index(validation[0], 1)]
    named = {f"training batch {n}": line for n, line in enumerate(lines[:training])}
    named |= {f"validation batch {n}": line for n, line in enumerate(validation)}
    return {
        f"{name} {key}": value
        for name, line in named.items()
        for key, value in line.items()
    }


def metrics(path: Path) -> Rows:
    """Returns every number of a `metrics.jsonl`, except measured times."""
    return {
        f"line {number} {key}": json.dumps(value)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for key, value in json.loads(line).items()
        if key not in TIMES
    }


def checkpoints(directory: Path) -> Rows:
    """Returns the checksums of all checkpoints in a folder, by step and part."""
    rows = {}
    steps = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
    for step in sorted(steps):
        meta = json.loads((directory / str(step) / "meta" / "metadata").read_text())
        for part in PARTS:
            if part in meta["checksums"]:
                rows[f"step {step} {part}"] = str(meta["checksums"][part])
    return rows


def lines(path: Path) -> Rows:
    """Returns the lines of a text file by their number."""
    numbered = enumerate(path.read_bytes().split(b"\n"), start=1)
    return {f"line {n}": line.decode(errors="backslashreplace") for n, line in numbered}


def keys(path: Path) -> Rows:
    """Returns the values of a JSON object by their key."""
    return {key: json.dumps(v) for key, v in json.loads(path.read_text()).items()}
