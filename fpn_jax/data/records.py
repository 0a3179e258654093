"""The fields of a record and of a batch, and what a source of records declares."""

import dataclasses
from typing import Any, Protocol

import numpy as np

from fpn_jax.errors import InputError, unknown

IGNORE = 255
"""Value of a mask where the class is unknown: no loss and no metric counts it."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One annotation of an image.

    Attributes:
      dtype: Name of the NumPy type.
      shape: Size of every axis: a number, or a letter. `H` and `W` are the height and
        width of the image, `N` is the number of boxes, `K` the number of landmarks.
      kind: How geometry moves it. `"label"`: not at all; `"class_map"`: by nearest
        neighbour; `"boxes"`: the bounding box of the moved corners; `"of_boxes"`: a
        value of each box, kept or dropped with it; `"points"`: in continuous
        coordinates.
      padding: Value in a batch where there is no example, or no further box.
      meaning: What the values say, in a few words.
    """

    dtype: str
    shape: tuple[int | str, ...]
    kind: str
    padding: int
    meaning: str


FIELDS = {
    "label": Field("int32", (), "label", 0, "index of the image's class"),
    "mask": Field(
        "uint8", ("H", "W"), "class_map", IGNORE, "class of a pixel; 255 is ignored"
    ),
    "boxes": Field(
        "float32", ("N", 4), "boxes", 0, "x0, y0, x1, y1 in pixels, in [0, W] × [0, H]"
    ),
    "box_labels": Field(
        "int32", ("N",), "of_boxes", -1, "index of each box's class; -1 is none"
    ),
    "box_crowd": Field(
        "int32", ("N",), "of_boxes", 0, "1 if a box counts neither as found nor missed"
    ),
    "box_identities": Field(
        "int32",
        ("N",),
        "of_boxes",
        -1,
        "number of each box's individual; -1 is unknown",
    ),
    "landmarks": Field(
        "float32", ("K", 3), "points", 0, "x, y in pixels; 1 if visible, else 0"
    ),
    "identity": Field("int32", (), "label", -1, "number of the individual"),
}
"""Every annotation that a record may carry.

Four readers share this table: `check` validates by it, geometry moves a field by its
`kind`, a batch is padded by it, and the documentation prints it (`describe`).

Coordinates are continuous: pixel `i` covers `[i, i + 1)`, x points right, y down."""

OF_BOXES = tuple(name for name, field in FIELDS.items() if field.kind == "of_boxes")
"""Fields with a value for each of the `boxes`."""


def describe() -> str:
    """Returns `FIELDS` as a table in Markdown, one line for each field.

    Example:
      >>> for line in describe().splitlines()[:4]:
      ...     print(line)
      | field | array | moves as | padding | values |
      |---|---|---|---|---|
      | `label` | int32 `[]` | label | 0 | index of the image's class |
      | `mask` | uint8 `[H, W]` | class_map | 255 | class of a pixel; 255 is ignored |
    """
    lines = ["| field | array | moves as | padding | values |", "|---|---|---|---|---|"]
    for name, field in FIELDS.items():
        axes = ", ".join(map(str, field.shape))
        lines.append(
            f"| `{name}` | {field.dtype} `[{axes}]` | {field.kind} | {field.padding} "
            f"| {field.meaning} |"
        )
    return "\n".join(lines)


DROPPED = "dropped_boxes"
"""Key of a moved record: how many boxes are not visible any more."""

Record = dict[str, Any]
"""One example on the host.

Every record has `image`: uint8 `[H, W, 3]` RGB, or a JPEG as `decode.Encoded` from a
source that was asked for it. The other keys are names of `FIELDS`; on the way to a
batch also `DROPPED`, and `mirrored` for the landmarks (`SourceInfo.mirrored`).

No annotation and an empty annotation differ. A field that is absent or None was not
annotated: a task that needs it cannot use the record (`BadRecord`). Zero boxes,
float32 `[0, 4]`, say that there is nothing to find, which is a valid example."""

Batch = dict[str, np.ndarray]
"""A flat dict of arrays with one leading batch dimension.

`image` uint8 `[B, S, S, 3]`, `weight` float32 `[B]` (1 for a real example, 0 for
padding), `index` int32 `[B]` (the record's number in its source), and the fields that
were asked for, padded to fixed shapes."""

SPLITS = ("train", "validate", "test")
"""The names of the splits, everywhere in the project."""


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What a source knows about all of its records.

    Attributes:
      classes: Names of the classes; `label` and `box_labels` are indices into it.
      fields: Names of `FIELDS` that the records carry. A single record may lack one.
      landmark_names: Names of the `K` landmarks.
      mirrored: Landmark `i` of a mirrored image is landmark `mirrored[i]` of the image
        before, such as `(1, 0)` for a left and a right eye. Empty swaps none.
      mask_classes: Names of the values of a mask, from 0.
      class_ids: Numbers of the classes in the files of the data, which files of results
        use; `()` numbers them from 1.

    Raises:
      InputError: A field is unknown, the names of the landmarks or of the mask's values
        are missing, there are more or fewer numbers than classes, or `mirrored` is not
        a permutation that undoes itself.
    """

    classes: tuple[str, ...]
    fields: tuple[str, ...]
    landmark_names: tuple[str, ...] = ()
    mirrored: tuple[int, ...] = ()
    mask_classes: tuple[str, ...] = ()
    class_ids: tuple[int, ...] = ()

    def __post_init__(self):
        for name in self.fields:
            if name not in FIELDS:
                raise unknown("field", name, FIELDS)
        for name, names in (
            ("landmarks", self.landmark_names),
            ("mask", self.mask_classes),
        ):
            if (name in self.fields) != bool(names):
                raise InputError(
                    f"SourceInfo.fields is {self.fields}, but the names of {name!r} "
                    f"are {names}; give both or none"
                )
        if self.class_ids and len(self.class_ids) != len(self.classes):
            raise InputError(
                f"SourceInfo.class_ids are {self.class_ids}; give one for each of the "
                f"{len(self.classes)} classes"
            )
        count, swap = len(self.landmark_names), self.mirrored
        if swap and (
            sorted(swap) != list(range(count))
            or any(swap[swap[i]] != i for i in range(count))
        ):
            raise InputError(
                f"SourceInfo.mirrored is {swap}; it must swap pairs of the {count} "
                "landmarks, such as (1, 0) for two of them"
            )


class Source(Protocol):
    """Random access to the records of one split.

    A source may also offer `read_ahead(indices)`, which starts to read records in the
    background; the pipeline calls it before it reads a batch. It may have `notes`:
    lines about files that are no records though they should be, and `remarks`: lines
    about files that are omitted on purpose. Training and check print both.

    Attributes:
      info: Classes and annotations of the records.
    """

    info: SourceInfo

    def __len__(self) -> int:
        """Returns the number of records."""

    def __getitem__(self, index: int) -> Record:
        """Returns one record.

        Raises:
          BadRecord: The record's file cannot be read or decoded.
        """

    def id(self, index: int) -> str:
        """Returns where a record came from: a path, or the source's name for it."""


def printable(name: str) -> str:
    """Returns the name of a file as one line of text, with other characters escaped.

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
    """A record that cannot be used; names the file and the reason.

    Attributes:
      id: Where the record came from.
      reason: Why it cannot be used, in a few words.
    """

    def __init__(self, id: str, reason: str):
        super().__init__(f"{id}: {reason}")
        self.id = id
        self.reason = reason

    def __reduce__(self):
        # The default would call __init__ with one argument, and a worker process
        # pickles this exception.
        return type(self), (self.id, self.reason)
