"""Metrics on disk: one JSON object a record, and TensorBoard events."""

import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class MetricsWriter:
    """Writes `metrics.jsonl` and TensorBoard events into one folder.

    A number that is not finite is written as a string (`"nan"`), since JSON has none.

    Args:
      directory: An existing folder.
      resume_step: Records of later steps are dropped, because a resumed run writes
        them again; 0 begins anew.
    """

    def __init__(self, directory: Path, *, resume_step: int = 0):
        path = Path(directory) / "metrics.jsonl"
        kept = [row for row in read(path) if row["step"] <= resume_step]
        begun = path.with_suffix(".tmp")
        begun.write_text("".join(json.dumps(row) + "\n" for row in kept))
        begun.replace(path)
        # A line at a time, for whoever follows the file.
        self._file = path.open("a", buffering=1)
        self._directory = str(directory)
        self._purge_step = resume_step + 1 if resume_step else None

    @functools.cached_property
    def _events(self) -> "SummaryWriter":
        # Not before a record is to be written: it imports PyTorch where that is
        # installed, which would hold up the first step.
        from tensorboardX import SummaryWriter

        return SummaryWriter(self._directory, purge_step=self._purge_step)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes one record.

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
        """Brings all records to the disk."""
        self._file.flush()
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        self._file.close()
        self._events.close()


class NoWriter:
    """Takes records and writes none: every process but the first has it."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Leaves the record to the first process."""

    def flush(self) -> None:
        """Has nothing to bring to the disk."""

    def close(self) -> None:
        """Has nothing to close."""


def read(path: Path) -> list[dict[str, float | str]]:
    """Returns the records of a `metrics.jsonl`; none where there is no file.

    A line that a killed process cut short is left out.
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
