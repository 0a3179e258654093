"""Progress of a run: a bar in a terminal, and occasional lines elsewhere."""

import datetime
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """Shows the step, the loss, the images per second and the remaining time.

    Args:
      total_steps: Length of the run, in steps.
      start_step: First step; above 0 in a resumed run.
      shown: Whether anything is shown; False in every process but the first.
      line_seconds: Seconds between two lines if there is no terminal.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start_step: int = 0,
        shown: bool = True,
        line_seconds: float = 30.0,
    ):
        self._console = Console(quiet=not shown, highlight=False)
        self._total_steps = total_steps
        self._line_seconds = line_seconds
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.0f} images/s"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(
            "train",
            total=total_steps,
            completed=start_step,
            loss=float("nan"),
            rate=0.0,
        )
        self._bar.start()

    def update(self, step: int, *, loss: float, images_per_second: float, seconds_left):
        """Shows the position of the run.

        Args:
          step: Optimizer steps taken.
          loss: Mean loss of the latest entry.
          images_per_second: Speed over all devices, in the latest entry.
          seconds_left: Estimated time to the end of the run.
        """
        self._bar.update(self._task, completed=step, loss=loss, rate=images_per_second)
        now = time.monotonic()
        due = now - self._last_line >= self._line_seconds or step == self._total_steps
        if not self._console.is_terminal and due:
            self._last_line = now
            left = datetime.timedelta(seconds=round(seconds_left))
            self.say(
                f"step {step}/{self._total_steps}  loss {loss:.4f}  "
                f"{images_per_second:.0f} images/s  {left} left"
            )

    def say(self, line: str) -> None:
        """Prints one line, above the bar if there is one.

        Args:
          line: The text.
        """
        self._console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Removes the bar."""
        self._bar.stop()
