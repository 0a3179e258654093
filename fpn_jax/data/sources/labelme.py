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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} is no valid JSON: {error}") from error
    shapes = found.get("shapes") if isinstance(found, dict) else None
    if not isinstance(shapes, list):
        raise ValueError(f"{what} has no list 'shapes'; it is no file of LabelMe")
    corners, names = [], []
    for number, shape in enumerate(shapes):
        about = f"{what}, shape {number}"
        kind = shape.get("shape_type", "polygon")
        if kind not in ("rectangle", "polygon"):
            raise ValueError(
                f"{about} is of type {kind!r}; boxes are read from rectangles and "
                "polygons"
            )
        try:
            points = np.array(shape["points"], np.float64).reshape(-1, 2)
            low, high = points.min(axis=0), points.max(axis=0)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{about} has no points with an x and a y each") from None
        names.append(str(shape.get("label") or "").strip())
        if not names[-1]:
            raise ValueError(f"{about} has no label")
        corners.append([*low, *high])
    sides = found.get("imageHeight"), found.get("imageWidth")
    size = tuple(map(int, sides)) if all(sides) else None
    corners = np.array(corners, np.float32).reshape(-1, 4)
    return Boxes(corners, tuple(names), (False,) * len(names), size)
