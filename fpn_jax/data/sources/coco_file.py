"""The JSON of a COCO data set: its images, categories and annotations, checked."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fpn_jax.data.images import reading
from fpn_jax.data.sources.annotated import Boxes, Size, refuse_repeated
from fpn_jax.errors import InputError

_ROUNDING = 0.02
"""Pixels by which a side may be outside: boxes are written with two decimals."""


class Image(NamedTuple):
    """One image of the file.

    Attributes:
      id: Its number.
      name: Its `file_name`, a path relative to the folder of the images.
      size: Height and width in pixels.
      annotations: Its annotations, as in the file.
    """

    id: int
    name: str
    size: Size
    annotations: list[dict[str, Any]]


class CocoFile(NamedTuple):
    """What a file of COCO says.

    Attributes:
      path: The file.
      names: Number of a category → its name, in the order of the numbers.
      images: Its images, in the order of the file.
    """

    path: Path
    names: dict[int, str]
    images: list[Image]

    @classmethod
    def read(cls, path: Path) -> "CocoFile":
        """Returns the contents of a file.

        Args:
          path: A JSON file with `images`, `annotations` and `categories`.

        Raises:
          InputError: The file cannot be read, lacks one of these or a value, has a
            number twice, or refers to a number that does not exist.
        """
        try:
            found = json.loads(reading.read_file(str(path)))
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as JSON: {error}") from error
        parts = []
        for name in ("images", "annotations", "categories"):
            part = found.get(name) if isinstance(found, dict) else None
            if not isinstance(part, list):
                raise InputError(
                    f"{path} has no list {name!r}; a file of COCO has images, "
                    "annotations and categories"
                )
            parts.append(part)
        images, annotations, categories = parts
        by_id = dict(_numbered(categories, f"{path}: category"))
        names = {
            k: str(_value(by_id[k], "name", f"{path}: category {k}")) for k in by_id
        }
        names = dict(sorted(names.items()))
        refuse_repeated(list(names.values()), f"{path}: the name of a category")
        made = {}
        for number, image in _numbered(images, f"{path}: image"):
            about = f"{path}: image {number}"
            name = str(_value(image, "file_name", about))
            size = tuple(_whole(image, side, about) for side in ("height", "width"))
            made[number] = Image(number, name, size, [])
        refuse_repeated([i.name for i in made.values()], f"{path}: the file name")
        for number, annotation in _numbered(annotations, f"{path}: annotation"):
            about = f"{path}: annotation {number}"
            image, kind = (
                _whole(annotation, key, about) for key in ("image_id", "category_id")
            )
            if image not in made:
                raise InputError(
                    f"{about} has the image_id {image}, which no image has"
                )
            if kind not in names:
                raise InputError(
                    f"{about} has the category_id {kind}, which no category has"
                )
            _check_box(annotation, about)
            made[image].annotations.append(annotation)
        return cls(path, names, list(made.values()))

    def boxes(self, image: Image, classes: Sequence[str]) -> Boxes:
        """Returns the boxes of an image that are of some classes.

        A box is `x, y, width, height` in continuous coordinates. A side that is outside
        of the image by 0.02 pixels at most is moved onto its border, because the
        numbers are rounded.

        Args:
          image: The image.
          classes: Names of the classes; boxes of others are omitted.
        """
        chosen = chosen_of(image, self.names, classes)
        corners = np.array([a["bbox"] for a in chosen], np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        height, width = image.size
        limits = np.array([width, height] * 2)
        over = (corners > limits) & (corners <= limits + _ROUNDING)
        under = (corners < 0) & (corners >= -_ROUNDING)
        corners = np.where(over, limits, np.where(under, 0, corners))
        return Boxes(
            corners.astype(np.float32),
            tuple(self.names[a["category_id"]] for a in chosen),
            tuple(bool(a.get("iscrowd", 0)) for a in chosen),
            image.size,
        )


def chosen_of(
    image: Image, names: dict[int, str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the annotations of an image that are of some classes.

    Args:
      image: The image.
      names: Number of a category → its name.
      classes: Names of the classes.
    """
    return [a for a in image.annotations if names[a["category_id"]] in classes]


def is_number(value: Any) -> bool:
    """Returns whether a value of the JSON is a number that is finite as a float."""
    # Python compares integers of any length, but `math.isfinite` cannot convert them.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _numbered(part: list, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields `(id, entry)` of a list of dicts, whose numbers must differ."""
    seen = set()
    for place, entry in enumerate(part):
        if not isinstance(entry, dict):
            raise InputError(
                f"{what} at place {place} is {entry!r}, which is no object"
            )
        number = _whole(entry, "id", f"{what} at place {place}")
        if number in seen:
            raise InputError(f"{what}: the id {number} is there twice")
        seen.add(number)
        yield number, entry


def _value(entry: dict[str, Any], key: str, about: str) -> Any:
    if key not in entry:
        raise InputError(f"{about} has no {key!r}")
    return entry[key]


def _whole(entry: dict[str, Any], key: str, about: str) -> int:
    value = _value(entry, key, about)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{about}: {key} is {value!r}; it must be a whole number")
    return value


def _check_box(annotation: dict[str, Any], about: str) -> None:
    box = _value(annotation, "bbox", about)
    four = isinstance(box, list) and len(box) == 4
    if not four or not all(map(is_number, box)):
        raise InputError(
            f"{about}: bbox is {box!r}; it must be four numbers, x, y, width and height"
        )
    crowd = annotation.get("iscrowd", 0)
    if not isinstance(crowd, int) or crowd not in (0, 1):
        raise InputError(f"{about}: iscrowd is {crowd!r}; it must be 0 or 1")
