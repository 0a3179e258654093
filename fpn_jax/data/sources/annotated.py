"""What sources share that read an image and annotations of it from files."""

import io
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fpn_jax.data.images import decode, exif, reading
from fpn_jax.data.images.decode import Encoded, Undecodable
from fpn_jax.data.records import BadRecord, Record, SourceInfo, printable
from fpn_jax.data.sources import layout
from fpn_jax.errors import InputError, unknown, within

Size = tuple[int, int]
"""Height and width, in pixels."""


class Frame(NamedTuple):
    """The pixels that annotations speak of.

    Attributes:
      size: Height and width of the upright image.
      orientation: Exif orientation of the file, 1 to 8; 1 is upright.
    """

    size: Size
    orientation: int

    @property
    def stored(self) -> Size:
        """Height and width of the image as stored."""
        sideways = self.orientation in exif.SIDEWAYS
        return self.size[::-1] if sideways else self.size

    def must_turn(self, size: Size, what: str) -> bool:
        """Returns whether an annotation is that of the stored, not the upright image.

        Args:
          size: Height and width that the annotation names.
          what: The annotation, for the error message.

        Raises:
          ValueError: The size is that of neither, or it does not tell which is meant.
        """
        height, width = self.size
        if size not in (self.size, self.stored):
            raise ValueError(
                f"{what} is of {size[1]} × {size[0]} pixels, the image of {width} × "
                f"{height}"
            )
        if self.orientation == 1:
            return False
        if self.size == self.stored:
            raise ValueError(
                f"the image is turned by Exif orientation {self.orientation}, and the "
                f"size of {what} does not tell whether it is turned too: store the "
                "image upright"
            )
        return size != self.size


ReadAnnotations = Callable[[Frame], dict[str, Any]]
"""Reads the annotations of an image; raises ValueError with the reason."""


class Item(NamedTuple):
    """One image and its annotations.

    Attributes:
      image: Path of the image.
      annotations: Reads its annotations.
    """

    image: str
    annotations: ReadAnnotations


class AnnotatedImages:
    """Images with annotations in other files, as a source of records.

    Args:
      items: The records, in order.
      info: Classes and fields of all records.
      notes: Lines about files that are not used, because something is wrong.
      remarks: Lines about files that are omitted on purpose.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Attributes:
      info: Classes and fields of all records.
      notes: Lines about files that are not used, because something is wrong.
      remarks: Lines about files that are omitted on purpose.
    """

    def __init__(
        self,
        items: Sequence[Item],
        info: SourceInfo,
        *,
        notes: Iterable[str] = (),
        remarks: Iterable[str] = (),
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
    ):
        self.info = info
        self.notes = tuple(map(printable, notes))
        self.remarks = tuple(map(printable, remarks))
        self._items, self._background, self._encoded = items, background, encoded

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Record:
        item = self._items[index]
        try:
            data = reading.read_file(item.image)
            image = decode.open_encoded(data, background=self._background)
            orientation = image.header.orientation if isinstance(image, Encoded) else 1
            annotations = item.annotations(Frame(image.shape[:2], orientation))
            if not self._encoded:
                image = decode.pixels(image)
        except (ValueError, Undecodable) as error:
            raise BadRecord(self.id(index), str(error)) from error
        return {"image": image, **annotations}

    def read_ahead(self, indices: Iterable[int]) -> None:
        """Starts to read the images of the records that this thread reads next."""
        reading.prefetch_files(self._items[index].image for index in indices)

    def id(self, index: int) -> str:
        """Returns the path of a record's image, with escaped unprintable characters."""
        return printable(self._items[index].image)


BOX_VALUES = ("box_labels", "box_crowd")
"""Fields of the records that `Boxes.in_image` returns beside the boxes."""


class Boxes(NamedTuple):
    """The boxes of one image as a file states them.

    Attributes:
      corners: float32 `[N, 4]`, x0, y0, x1, y1, continuous, in [0, W] × [0, H].
      names: Name of the class of each box.
      crowd: Whether each box counts neither as found nor as missed.
      size: Height and width of the image that the file names; None if it names none.
      relative: Whether the corners are shares of the upright image instead of pixels.
    """

    corners: np.ndarray
    names: tuple[str, ...]
    crowd: tuple[bool, ...]
    size: Size | None
    relative: bool = False

    def in_image(
        self, frame: Frame, classes: Sequence[str], what: str
    ) -> dict[str, np.ndarray]:
        """Returns `boxes`, `box_labels` and `box_crowd` of the upright image.

        Args:
          frame: The image.
          classes: Names of the classes.
          what: The file, for error messages.

        Raises:
          ValueError: The image has another size, or a class is unknown; the text is
            the reason.
        """
        corners = self.corners
        if self.relative:
            height, width = frame.size
            corners = corners * np.array([width, height] * 2, np.float32)
        if self.size is not None and frame.must_turn(self.size, what):
            corners = turn_boxes(corners, frame)
        for name in self.names:
            if name not in classes:
                raise ValueError(
                    f"{what} has the class {name!r}; the classes are "
                    f"{', '.join(classes)}"
                )
        labels = [list(classes).index(name) for name in self.names]
        return {
            "boxes": corners,
            "box_labels": np.array(labels, np.int32),
            "box_crowd": np.array(self.crowd, np.int32),
        }


def hashed_split(
    names: Iterable[str], split: str, validate_fraction: float, test_fraction: float
) -> list[str]:
    """Returns the names of a split, chosen by a hash of each name alone.

    Adding files therefore does not change the split of the others.

    Args:
      names: Names of images, without a folder.
      split: `train`, `validate` or `test`.
      validate_fraction: Share of the names in `validate`, in [0, 1).
      test_fraction: Share of the names in `test`, in [0, 1).

    Raises:
      InputError: A share is out of range, or both together leave nothing to train on.
    """
    within("validate_fraction", validate_fraction, 0, 1, open_high=True)
    within("test_fraction", test_fraction, 0, 1, open_high=True)
    held_out = validate_fraction + test_fraction
    within("validate_fraction + test_fraction", held_out, 0, 1, open_high=True)

    def split_of(name: str) -> str:
        place = layout.hash_fraction(name)
        if place < validate_fraction:
            return "validate"
        return "test" if place < held_out else "train"

    return [name for name in names if split_of(name) == split]


def refuse_empty(items: Sequence[Item], split: str, root: object, why: str) -> None:
    """Refuses a split without a record.

    Args:
      items: The records of the split.
      split: Name of the split.
      root: Folder of the data.
      why: What the split was made from, for the error message.

    Raises:
      InputError: There is no record.
    """
    if not items:
        raise InputError(f"split {split!r} of {root} is empty: {why}")


def refuse_repeated(names: Iterable[str], what: str) -> None:
    """Refuses a name that is there twice.

    Args:
      names: The names.
      what: What a name is, for the error message.

    Raises:
      InputError: Two names are equal.
    """
    seen = set()
    for name in names:
        if name in seen:
            raise InputError(f"{what} {name!r} is there twice")
        seen.add(name)


def check_fields(fields: Sequence[str], choices: Sequence[str]) -> None:
    """Refuses annotations that a source does not have.

    Args:
      fields: Names of fields that a record must have.
      choices: Names of the fields of the source.

    Raises:
      InputError: No field is given, or one is unknown.
    """
    if not fields:
        raise InputError(f"fields are (); give one or more of {', '.join(choices)}")
    for field in fields:
        if field not in choices:
            raise unknown("one of the fields", field, choices)


def read_mask(path: str, frame: Frame, table: np.ndarray, names: str) -> np.ndarray:
    """Returns a class map from an image file of values: grey, or with a palette.

    Args:
      path: The file.
      frame: The image that it belongs to.
      table: int `[256]`: value of the file → class, or −1 for a value without a class.
      names: The values that have a class, for the error message.

    Returns:
      uint8 `[H, W]`, of the upright image.

    Raises:
      ValueError: The file cannot be read, has another size than the image, has colours
        instead of values, or has a value without a class; the text is the reason.
    """
    what = f"mask {os.path.basename(path)}"
    try:
        with warnings.catch_warnings():
            # Sizes are compared below, so Pillow's warning about large images is moot.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(reading.read_file(path))) as image:
                mode, values = image.mode, np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{what} cannot be read: {reason}") from error
    if values.ndim != 2:
        raise ValueError(
            f"{what} has colours (mode {mode}); a mask is grey or has a palette, and "
            "its values are numbers of classes"
        )
    if mode == "1":
        values = values.astype(np.uint8)
    if values.max(initial=0) > 255 or values.min(initial=0) < 0:
        raise ValueError(f"{what} has the value {values.max()}; the values end at 255")
    if frame.must_turn(values.shape, what):
        values = exif.upright(values[..., None], frame.orientation)[..., 0]
    classes = table[values]
    if (classes < 0).any():
        value = int(values[classes < 0][0])
        raise ValueError(f"{what} has the value {value}, which has no class; {names}")
    return classes.astype(np.uint8)


def turn_boxes(boxes: np.ndarray, frame: Frame) -> np.ndarray:
    """Returns boxes of the stored image in the upright image.

    Args:
      boxes: float32 `[N, 4]`, x0, y0, x1, y1.
      frame: The image.
    """
    corners = turn_points(boxes.reshape(-1, 2), frame).reshape(-1, 2, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def turn_points(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Returns points of the stored image in the upright image.

    Args:
      points: float32 `[N, 2]`, x and y.
      frame: The image.
    """
    height, width = frame.stored
    x, y = points.T
    turned = {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }
    return np.stack(turned[frame.orientation], axis=1).astype(np.float32)
