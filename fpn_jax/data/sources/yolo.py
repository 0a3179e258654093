"""Boxes in the text files of YOLO: `class x y width height`, in shares of the image."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from fpn_jax.data.images import reading
from fpn_jax.data.sources.annotated import Boxes
from fpn_jax.errors import InputError

LISTS = ("classes.txt", "obj.names")
"""Files with the name of a class in each line."""

_ROUNDING = 1e-3
"""Share of the image by which a number may be outside through rounding."""


def read_yolo(path: str, classes: Sequence[str]) -> Boxes:
    """Returns the boxes of a file, whose numbers are shares of the upright image.

    Sides that lie outside of the image by less than a thousandth are moved onto its
    border: the usual files round to six digits, or less.

    Args:
      path: The file; an empty one says that the image shows no object.
      classes: Name of every number of a class.

    Raises:
      ValueError: The file cannot be read, or a line is wrong; the text is the reason.
    """
    what = os.path.basename(path)
    try:
        lines = reading.read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is no text in UTF-8: {error}") from error
    corners, names = [], []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        about = f"{what}, line {number}"
        if len(words) != 5:
            raise ValueError(
                f"{about} has {len(words)} numbers; it must have 5: class, x, y, width "
                "and height"
            )
        try:
            label, (x, y, width, height) = int(words[0]), map(float, words[1:])
        except ValueError:
            raise ValueError(f"{about}: {line.strip()!r} are no five numbers") from None
        if not 0 <= label < len(classes):
            raise ValueError(
                f"{about} has the class {label}, which has no name; there are "
                f"{len(classes)} names"
            )
        box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        if not ((box >= -_ROUNDING) & (box <= 1 + _ROUNDING)).all():
            hint = "; are these pixels?" if max(x, y, width, height) > 2 else ""
            raise ValueError(
                f"{about}: the box {' '.join(words[1:])} reaches beyond the image; the "
                f"numbers are shares of its width and height{hint}"
            )
        corners.append(np.clip(box, 0, 1))
        names.append(classes[label])
    corners = np.array(corners, np.float32).reshape(-1, 4)
    return Boxes(corners, tuple(names), (False,) * len(names), None, relative=True)


def class_names(folder: Path, root: Path) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of their numbers.

    They are read from the first `.yaml` file with `names`, `classes.txt` or
    `obj.names`, in the folder of the annotations or a folder above it, up to `root`.

    Args:
      folder: Folder of the annotations.
      root: Folder of the data.

    Raises:
      InputError: There is no such file, or it cannot be understood.
    """
    places = [folder.resolve(), *folder.resolve().parents]
    if root.resolve() in places:
        places = places[: places.index(root.resolve()) + 1]
    else:
        places = places[:2]
    for place in places:
        for path in sorted([*place.glob("*.yaml"), *place.glob("*.yml")]):
            if names := _from_yaml(path):
                return names
        for path in (place / name for name in LISTS):
            if path.is_file():
                lines = path.read_text(encoding="utf-8-sig").splitlines()
                return tuple(line.strip() for line in lines if line.strip())
    raise InputError(
        f"{folder} has numbers of classes without names: add {LISTS[0]} or data.yaml, "
        "or give --config.data.source.classes=\"('cat','dog')\", in their order"
    )


def _from_yaml(path: Path) -> tuple[str, ...]:
    """Returns the `names` of a YAML file, a list or a dict; `()` if it has none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no valid YAML: {reason}") from error
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise InputError(
                f"{path}: its names have the numbers {list(names)}; they must be 0, 1, "
                "2 …"
            )
        names = [names[number] for number in range(len(names))]
    return tuple(map(str, names)) if isinstance(names, list) else ()
