"""Boxes in the JSON files of LabelMe."""

import json
import os

import numpy as np

from fpn_jax.data.images import reading
from fpn_jax.data.sources.annotated import Boxes


def read_labelme(path: str) -> Boxes:
    """Returns the boxes around the rectangles and polygons of a LabelMe file.

    Coordinates are continuous, and the corners of a rectangle may be in any order.

    Args:
      path: The file.

    Raises:
      ValueError: The file cannot be read, or has a shape of another type; the text is
        the reason.
    """
    what = os.path.basename(path)
    try:
        found = json.loads(reading.read_file(path))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{what} is no valid JSON: {error}") from error
    shapes = found.get("shapes") if isinstance(found, dict) else None
    if not isinstance(shapes, list):
        coco = isinstance(found, dict) and "categories" in found
        hint = (
            "; a file of COCO is read by --config.data.source.name=coco" if coco else ""
        )
        raise ValueError(f"{what} has no list 'shapes'; it is no file of LabelMe{hint}")
    corners, names = [], []
    for number, shape in enumerate(shapes):
        about = f"{what}, shape {number}"
        if not isinstance(shape, dict):
            raise ValueError(f"{about} is {shape!r}, which is no object")
        kind = shape.get("shape_type", "polygon")
        if kind not in ("rectangle", "polygon"):
            raise ValueError(
                f"{about} is of type {kind!r}; boxes are read from rectangles and "
                "polygons"
            )
        try:
            points = np.array(shape["points"], np.float64)
            x, y = points.T
            low, high = (x.min(), y.min()), (x.max(), y.max())
        except (KeyError, OverflowError, TypeError, ValueError):
            raise ValueError(f"{about} has no points with an x and a y each") from None
        if len(points) < 2:
            raise ValueError(f"{about} has one point; a {kind} has two or more")
        label = shape.get("label")
        names.append("" if label is None else str(label).strip())
        if not names[-1]:
            raise ValueError(f"{about} has no label")
        corners.append([*low, *high])
    sides = found.get("imageHeight"), found.get("imageWidth")
    if any(side is not None and type(side) is not int for side in sides):
        raise ValueError(
            f"{what}: imageHeight and imageWidth are {sides}; they must be whole "
            "numbers"
        )
    size = sides if all(sides) else None
    corners = np.array(corners, np.float32).reshape(-1, 4)
    return Boxes(corners, tuple(names), (False,) * len(names), size)
