"""The schema of a record, of a batch, and of a source of records."""

from typing import Any, Protocol

import numpy as np

from fpn_jax.errors import InputError

Record = dict[str, Any]
"""One example, on the host.

Always: `image` uint8 `[H, W, 3]` RGB (or a JPEG as `decode.Encoded`, from a source that
was asked for it), `label` int. Where a source knows them:
`mask` uint8 `[H, W]`, 1 on the animal; `boxes` float32 `[N, 4]` as
`(x0, y0, x1, y1)` in pixels, edges (not centres of pixels), x to the right, y down;
`box_labels` int32 `[N]`; `landmarks` float32 `[K, 3]` as `(x, y, visible)`, in pixels;
`identity` int32, the individual.
"""

Batch = dict[str, np.ndarray]
"""A flat dict of arrays with one leading batch dimension.

`image` uint8 `[B, H, W, 3]`, `label` int32 `[B]`, `weight` float32 `[B]` (1 for a real
example, 0 for padding), `index` int32 `[B]` (the record's number in its source).
"""

SPLITS = ("train", "validate", "test")
"""The names of the splits, everywhere in the project."""


class Source(Protocol):
    """Random access to the records of one split.

    Attributes:
      classes: Names of the classes; a record's label is a position in it.
    """

    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Returns the number of records."""

    def __getitem__(self, index: int) -> Record:
        """Returns one decoded record.

        Raises:
          BadRecord: The record's file does not decode whole.
        """

    def id(self, index: int) -> str:
        """Returns where a record came from: a path, or the source's name for it."""


def printable(name: str) -> str:
    """Returns a name of a file, escaped where it would not make one line of text.

    Example:
      >>> printable("cats/a b.jpg"), printable("a\\nb"), printable("\\udcff.jpg")
      ('cats/a b.jpg', 'a\\\\nb', '\\\\udcff.jpg')
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in name
    )


class AbsentSplit(InputError):
    """The data has no such split; a test split may be absent, the others may not."""


class BadRecord(InputError):
    """A record that cannot be decoded whole; names the file and the reason.

    Attributes:
      id: Where the record came from.
      reason: Why it cannot be used, in a few words.
    """

    def __init__(self, id: str, reason: str):
        super().__init__(f"{id}: {reason}")
        self.id = id
        self.reason = reason

    def __reduce__(self):
        # Crosses process boundaries: the default would call __init__ with one argument.
        return type(self), (self.id, self.reason)
