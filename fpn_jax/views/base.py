"""The protocol of a view: how one kind of answer is shown.

A view runs on the host, with NumPy, and never imports JAX. It decides nothing: which
class, which boxes or which cells are the answer is decided by the task's `decode`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from fpn_jax.report.html import Headline, Section

Answer = Mapping[str, np.ndarray]
"""The answer to one record, as a task decodes it, without a batch dimension."""


class Info(Protocol):
    """What the data say about all their records; `data.records.SourceInfo` has it.

    Attributes:
      classes: Names of the classes; a label is an index into it.
      landmark_names: Names of the landmarks; empty where the records have none.
      mask_classes: Names of the values of a mask; empty where the records have none.
      class_ids: Numbers of the classes in the files of the data; empty counts from 1.
    """

    classes: tuple[str, ...]
    landmark_names: tuple[str, ...]
    mask_classes: tuple[str, ...]
    class_ids: tuple[int, ...]


@dataclass(frozen=True)
class Evaluated:
    """An evaluated split, as a view reads it.

    Attributes:
      rows: What the task kept, by name: arrays with one row a record.
      ids: Where the record of each row came from.
      metrics: Name of a metric → its computed value.
      split: Name of the split.
      load_image: Takes a row to its evaluated crop, uint8 `[H, W, 3]`, RGB. A view
        calls it only for pictures that it shows.
      explain: Takes rows and int targets `[rows]` to one dict a row: level of the
        pyramid → heat map, float32 `[ceil(H / 2**level), ceil(W / 2**level)]`, 0 to 1.
        None where the task cannot be explained.
      answers: Takes rows to the answers to them, in pixels of the evaluated crops. A
        view calls it only for pictures that it shows.
      load_truth: Takes a row to the annotations of its evaluated crop, name → array.

    Raises:
      ValueError: There is no row, or the numbers of rows differ.
    """

    rows: Mapping[str, np.ndarray]
    ids: Sequence[str]
    metrics: Mapping[str, Any]
    split: str
    load_image: Callable[[int], np.ndarray]
    explain: (
        Callable[[Sequence[int], np.ndarray], list[Mapping[int, np.ndarray]]] | None
    )
    answers: Callable[[Sequence[int]], list[Answer]] | None = None
    load_truth: Callable[[int], Mapping[str, np.ndarray]] | None = None

    def __post_init__(self):
        if len(self.ids) == 0:
            raise ValueError(f"split {self.split!r} has no record to report on")
        for name, values in self.rows.items():
            if len(values) != len(self.ids):
                raise ValueError(
                    f"there are {len(self.ids)} ids for {len(values)} rows of {name!r}"
                )


class View(Protocol):
    """Shows one kind of answer; a frozen dataclass.

    Attributes:
      answers: Keys of an answer that `rows` and `draw` read.
      keeps: Keys of the rows of an evaluation that the other methods read.
    """

    answers: ClassVar[frozenset[str]]
    keeps: ClassVar[frozenset[str]]

    def columns(self, info: Info) -> tuple[str, ...]:
        """Returns the columns of the prediction table, between `path` and `error`.

        Args:
          info: What the data say about their records.
        """

    def rows(self, answer: Answer, info: Info) -> list[dict[str, Any]]:
        """Returns the lines of the prediction table for one record.

        Args:
          answer: The answer to the record.
          info: What the data say about their records.

        Returns:
          One dict a line, with a value for each of `columns`; as many lines as the
          answer has parts, such as boxes.
        """

    def draw(self, image: np.ndarray, answer: Answer, info: Info) -> np.ndarray:
        """Returns a picture that shows the answer.

        Args:
          image: uint8 `[H, W, 3]`, RGB; not modified.
          answer: The answer to the record, in the pixels of `image`.
          info: What the data say about their records.

        Returns:
          uint8 `[H', W', 3]`, RGB.
        """

    def files(self, answer: Answer, info: Info) -> dict[str, np.ndarray]:
        """Returns pictures that another program reads, beside the drawn picture.

        Args:
          answer: The answer to the record, in the pixels of its image.
          info: What the data say about their records.

        Returns:
          Ending of the file's name, such as `"_mask"` → uint8 `[H, W]` or `[H, W, 3]`;
          `{}` for none.
        """

    def results(self, answer: Answer, info: Info) -> list[dict[str, Any]] | None:
        """Returns the detections as COCO's files of results list them.

        Args:
          answer: The answer to the record, in the pixels of its image.
          info: What the data say about their records.

        Returns:
          Entries with `category_id`, `bbox` and `score`; None for answers of another
          kind.
        """

    def headline(self, evaluated: Evaluated, info: Info) -> Headline:
        """Returns the head of the report.

        Args:
          evaluated: The evaluated split.
          info: What the data say about their records.
        """

    def sections(self, evaluated: Evaluated, info: Info) -> list[Section]:
        """Returns the sections of the report, between training and skipped files.

        Args:
          evaluated: The evaluated split.
          info: What the data say about their records.
        """

    def mistakes(self, evaluated: Evaluated, info: Info) -> list[dict[str, Any]]:
        """Returns which records were answered wrongly, as lines of a table.

        Args:
          evaluated: The evaluated split.
          info: What the data say about their records.

        Returns:
          One dict a wrong record, all with the same keys: `id`, and what was wrong.
        """
