"""Boxes in the XML files of PASCAL VOC."""

import os
import xml.etree.ElementTree as ElementTree

import numpy as np

from fpn_jax.data.images import reading
from fpn_jax.data.sources.annotated import Boxes


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
