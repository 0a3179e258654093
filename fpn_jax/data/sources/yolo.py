"""Boxes in the text files of YOLO: `class x y width height`, in shares of the image."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from fpn_jax.data.images import reading
from fpn_jax.data.sources.annotated import Boxes, refuse_repeated
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
            label = int(words[0])
        except ValueError:
            raise ValueError(
                f"{about}: the class {words[0]!r} is no whole number"
            ) from None
        try:
            x, y, width, height = map(float, words[1:])
        except ValueError:
            raise ValueError(
                f"{about}: {' '.join(words[1:])!r} are no four numbers"
            ) from None
        if not 0 <= label < len(classes):
            raise ValueError(
                f"{about} has the class {label}, which has no name; there are "
                f"{len(classes)} names"
            )
        if not np.isfinite([x, y, width, height]).all():
            raise ValueError(
                f"{about}: {line.strip()!r} has a number that is not finite"
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
    `obj.names`, in the folder of the annotations or a folder above it, up to `root`; if
    there is none, from those of its subfolders, which must then agree.

    Args:
      folder: Folder of the annotations.
      root: Folder of the data.

    Raises:
      InputError: There is no such file, it cannot be understood, or two disagree.
    """
    places = [folder.resolve(), *folder.resolve().parents]
    if root.resolve() in places:
        places = places[: places.index(root.resolve()) + 1]
    else:
        places = places[:2]
    for place in places:
        if found := _in_folder(place):
            return found[1]
    below = sorted(path for path in folder.rglob("*") if path.is_dir())
    there = [found for place in below if (found := _in_folder(place))]
    for path, names in there:
        if names != there[0][1]:
            raise InputError(
                f"{there[0][0]} and {path} have different names of classes; give "
                "--config.data.source.classes=\"('cat','dog')\", in their order"
            )
    if there:
        return there[0][1]
    raise InputError(
        f"{folder} has numbers of classes without names: add {LISTS[0]} or data.yaml, "
        "or give --config.data.source.classes=\"('cat','dog')\", in their order"
    )


def _in_folder(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """Returns the file of names in a folder, and the names; None if there is none."""
    listed = [folder / name for name in LISTS if (folder / name).is_file()]
    for path in (*sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]), *listed):
        names = _from_list(path) if path in listed else _from_yaml(path)
        refuse_repeated(names, f"{path}: the name")
        if names:
            return path, names
        if path in listed:
            raise InputError(f"{path} has no names; write one in each line")
    return None


def _from_list(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _from_yaml(path: Path) -> tuple[str, ...]:
    """Returns the `names` of a YAML file, a list or a dict; `()` if it has none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no valid YAML: {reason}") from error
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise InputError(
                f"{path}: its names have the numbers {list(names)}; they must be 0, 1, "
                "2 …"
            )
        names = [names[number] for number in range(len(names))]
    for name in names if isinstance(names, list) else ():
        if isinstance(name, bool) or not isinstance(name, str | int):
            # YAML reads the words yes, no, on and off as true and false.
            raise InputError(f"{path}: the name {name!r} is no text; put it in quotes")
    return tuple(map(str, names)) if isinstance(names, list) else ()
