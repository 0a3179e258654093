"""Metrics on disk: a JSON object per entry, and TensorBoard events."""

import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from fpn_jax.errors import InputError

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class MetricsWriter:
    """Writes a file of JSON lines, and TensorBoard events in the same folder.

    JSON has no non-finite numbers, so they are written as strings, such as `"nan"`.

    Args:
      path: The file, in an existing folder.
      resume_step: Step at which the run resumes. Entries of later steps are dropped,
        because the run writes them again; 0 drops all entries.
    """

    def __init__(self, path: Path, *, resume_step: int = 0):
        kept = [row for row in read(path) if row["step"] <= resume_step]
        begun = path.with_suffix(".tmp")
        begun.write_text("".join(json.dumps(row) + "\n" for row in kept))
        begun.replace(path)
        # Flush the file after every line, so that `tail -f` shows new entries.
        self._file = path.open("a", buffering=1)
        self._directory = str(path.parent)
        self._purge_step = resume_step + 1 if resume_step else None

    @functools.cached_property
    def _events(self) -> "SummaryWriter":
        # tensorboardX imports PyTorch if it is installed, which takes a second. Import
        # it late, so that the first step does not wait.
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
    """A writer that writes nothing, for every process but the first."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Ignores an entry, which the first process writes."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def read(path: Path) -> list[dict[str, float | str]]:
    """Returns the entries of a `metrics.jsonl`; none if the file does not exist.

    A line that is incomplete, because the process was killed, is skipped.

    Args:
      path: The file.

    Raises:
      InputError: The file is no text in UTF-8.
    """
    if not path.exists():
        return []
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: convert it, or move it away to continue "
            "without its entries"
        ) from error
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
