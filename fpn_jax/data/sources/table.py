"""Boxes in tables of comma-separated values."""

import csv
import io
import os

import numpy as np

from fpn_jax.data.images import reading
from fpn_jax.data.sources.annotated import Boxes, Size
from fpn_jax.errors import InputError

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
      InputError: A column is missing, or a line lacks a value, has more values than
        columns, or has a value that is no number.
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
        about = f"{path}, line {number}"
        # Values beyond the last column are a list under None.
        extra = line.pop(None, [])
        if not any((*line.values(), *extra)):
            continue
        if any(extra):
            raise InputError(
                f"{about} has more values than the {len(names)} columns; a value with "
                "a comma needs quotes"
            )
        image = os.path.splitext(os.path.basename(line[columns["image"]] or ""))[0]
        if not image:
            raise InputError(f"{about} names no image")
        values = [line[columns[side]] for side in ("xmin", "ymin", "xmax", "ymax")]
        corners.setdefault(image, [])
        classes.setdefault(image, [])
        sizes[image] = _size(line)
        if not any(values):
            continue
        try:
            x0, y0, x1, y1 = map(float, values)
        except (TypeError, ValueError):
            raise InputError(f"{about}: {values} are no four numbers") from None
        corners[image].append([x0 - origin, y0 - origin, x1, y1])
        classes[image].append((line[columns["class"]] or "").strip())
        if not classes[image][-1]:
            raise InputError(f"{about} has a box without a class")
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
