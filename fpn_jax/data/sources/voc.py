"""Boxes in the files of PASCAL VOC and in tables of comma-separated values."""

import csv
import io
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fpn_jax.data.images import reading
from fpn_jax.data.sources.annotated import Frame, Size, turn_boxes
from fpn_jax.errors import InputError

BOX_VALUES = ("box_labels", "box_crowd")
"""Fields of the records that `Boxes.in_image` returns beside the boxes."""


class Boxes(NamedTuple):
    """The boxes of one image as a file states them.

    Attributes:
      corners: float32 `[N, 4]`, x0, y0, x1, y1, continuous, in [0, W] × [0, H].
      names: Name of the class of each box.
      crowd: Whether each box counts neither as found nor as missed.
      size: Height and width of the image that the file names; None if it names none.
    """

    corners: np.ndarray
    names: tuple[str, ...]
    crowd: tuple[bool, ...]
    size: Size | None

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


def read_voc(path: str) -> Boxes:
    """Returns the boxes of a VOC XML file, whose coordinates are 1-based and inclusive.

    A box `xmin … xmax` covers the pixels `xmin − 1 … xmax − 1`, which is the interval
    `[xmin − 1, xmax]`. An object with `<difficult>1</difficult>` is a crowd.

    Args:
      path: The file.

    Raises:
      ValueError: The file cannot be read, or lacks a number; the text is the reason.
    """
    what = os.path.basename(path)
    try:
        root = ElementTree.fromstring(reading.read_file(path))
    except ElementTree.ParseError as error:
        raise ValueError(f"{what} is no valid XML: {error}") from error
    corners, names, crowd = [], [], []
    for number, found in enumerate(root.iter("object")):
        about = f"{what}, object {number}"
        values = [
            _number(found, f"bndbox/{side}", about)
            for side in ("xmin", "ymin", "xmax", "ymax")
        ]
        corners.append([values[0] - 1, values[1] - 1, values[2], values[3]])
        names.append((found.findtext("name") or "").strip())
        crowd.append((found.findtext("difficult") or "").strip() == "1")
        if not names[-1]:
            raise ValueError(f"{about} has no name of a class")
    size = None
    if root.find("size") is not None:
        # Some tools write 0 where they do not know the size.
        sides = tuple(
            int(_number(root, f"size/{s}", what)) for s in ("height", "width")
        )
        size = sides if min(sides) > 0 else None
    corners = np.array(corners, np.float32).reshape(-1, 4)
    return Boxes(corners, tuple(names), tuple(crowd), size)


def _number(node: ElementTree.Element, path: str, what: str) -> float:
    text = node.findtext(path)
    try:
        return float(text)
    except (TypeError, ValueError):
        shown = "is missing" if text is None else f"is {text!r}, which is no number"
        raise ValueError(f"{what}: {path} {shown}") from None


_COLUMNS = {
    "image": ("image", "image_name", "filename", "file", "path", "image_id"),
    "xmin": ("xmin", "x_min", "x0", "x1"),
    "ymin": ("ymin", "y_min", "y0", "y1"),
    "xmax": ("xmax", "x_max", "x1", "x2"),
    "ymax": ("ymax", "y_max", "y1", "y2"),
    "class": ("class", "label", "name", "category", "species"),
}
"""What a column means → the names that are looked for, the first one found is used."""


def read_table(path: str, origin: int) -> dict[str, Boxes]:
    """Returns name of an image without its suffix → its boxes, from a CSV file.

    The first line names the columns: `image`, `xmin`, `ymin`, `xmax`, `ymax` and
    `class`, or the usual other names of them; `image_width` and `image_height` are
    compared with the image. A line whose four numbers are empty says that the image
    shows no object.

    Args:
      path: The file.
      origin: 0 if the numbers are continuous coordinates, 1 if they are numbers of
        pixels from 1 on, the last one included, as in VOC.

    Raises:
      InputError: A column is missing, or a line has a value that is no number.
    """
    try:
        text = reading.read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    lines = csv.DictReader(io.StringIO(text))
    names = lines.fieldnames or []
    columns = {}
    for meaning, choices in _COLUMNS.items():
        taken = set(columns.values())
        found = [c for c in choices if c in names and c not in taken]
        if not found:
            raise InputError(
                f"{path} has no column for {meaning}, such as {choices[0]!r}; its "
                f"columns are {', '.join(names)}"
            )
        columns[meaning] = found[0]
    corners: dict[str, list] = {}
    classes: dict[str, list[str]] = {}
    sizes: dict[str, Size | None] = {}
    for number, line in enumerate(lines, start=2):
        image = os.path.splitext(os.path.basename(line[columns["image"]] or ""))[0]
        values = [line[columns[side]] for side in ("xmin", "ymin", "xmax", "ymax")]
        corners.setdefault(image, [])
        classes.setdefault(image, [])
        sizes[image] = _size(line)
        if not any(values):
            continue
        try:
            x0, y0, x1, y1 = map(float, values)
        except (TypeError, ValueError):
            raise InputError(
                f"{path}, line {number}: {values} are no four numbers"
            ) from None
        corners[image].append([x0 - origin, y0 - origin, x1, y1])
        classes[image].append((line[columns["class"]] or "").strip())
    return {
        image: Boxes(
            np.array(corners[image], np.float32).reshape(-1, 4),
            tuple(classes[image]),
            (False,) * len(classes[image]),
            sizes[image],
        )
        for image in corners
    }


def _size(line: dict[str, str]) -> Size | None:
    sides = line.get("image_height"), line.get("image_width")
    return (
        tuple(map(int, sides))
        if all(side and side.isdigit() for side in sides)
        else None
    )
