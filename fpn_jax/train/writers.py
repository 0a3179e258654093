"""Metrics on disk: one JSON object an entry, and TensorBoard events."""

import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class MetricsWriter:
    """Writes a file of JSON lines, and TensorBoard events beside it.

    A number that is not finite is written as a string (`"nan"`), since JSON has none.

    Args:
      path: The file, in a folder that exists.
      resume_step: Entries of later steps are dropped, because a resumed run writes
        them again; 0 begins anew.
    """

    def __init__(self, path: Path, *, resume_step: int = 0):
        kept = [row for row in read(path) if row["step"] <= resume_step]
        begun = path.with_suffix(".tmp")
        begun.write_text("".join(json.dumps(row) + "\n" for row in kept))
        begun.replace(path)
        # The file is flushed after every line, so that it can be followed.
        self._file = path.open("a", buffering=1)
        self._directory = str(path.parent)
        self._purge_step = resume_step + 1 if resume_step else None

    @functools.cached_property
    def _events(self) -> "SummaryWriter":
        # tensorboardX imports PyTorch where that is installed, which takes a second:
        # the first step does not wait for it.
        from tensorboardX import SummaryWriter

        return SummaryWriter(self._directory, purge_step=self._purge_step)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes one entry.

        Args:
          step: Optimizer steps taken.
          scalars: Name, such as `"train/loss"`, → number.
        """
        row = {"step": step} | {
            name: value if math.isfinite(value) else str(value)
            for name, value in scalars.items()
        }
        self._file.write(json.dumps(row) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Writes all entries to the disk."""
        self._file.flush()
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        self._file.close()
        self._events.close()


class NoWriter:
    """Writes nothing: for every process but the first."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Does nothing; the first process writes the entry."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def read(path: Path) -> list[dict[str, float | str]]:
    """Returns the entries of a `metrics.jsonl`; none where there is no file.

    A line that a killed process cut short is skipped.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
