"""Masks of COCO: polygons, and run lengths as a list or as a text."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fpn_jax.data.records import IGNORE
from fpn_jax.data.sources.annotated import Size
from fpn_jax.data.sources.coco_file import is_number
from fpn_jax.errors import InputError

_MAX_BITS = 40
"""Bits of a run length in a text; more are no length of an image."""


def class_map(objects: Iterable[tuple[dict[str, Any], int]], size: Size) -> np.ndarray:
    """Returns the class of every pixel, uint8 `[H, W]`; 0 shows no object.

    A pixel that several objects cover has the value of the smallest of them. A pixel of
    a crowd is `IGNORE`, unless an object covers it.

    Args:
      objects: Annotations, each with the value of its pixels.
      size: Height and width of the image.

    Raises:
      ValueError: A segmentation is missing or wrong; the text is the reason.
    """
    shapes = []
    for annotation, value in objects:
        about = f"the segmentation of annotation {annotation['id']}"
        shape = _decode(annotation.get("segmentation"), size, about)
        crowd = bool(annotation.get("iscrowd"))
        shapes.append((not crowd, -int(shape.sum()), shape, IGNORE if crowd else value))
    made = np.zeros(size, np.uint8)
    for *_, shape, value in sorted(shapes, key=lambda entry: entry[:2]):
        made[shape] = value
    return made


def require_polygons(annotations: Iterable[dict[str, Any]]) -> None:
    """Refuses polygons if pycocotools, which draws them, is not installed.

    Args:
      annotations: Annotations; run lengths need no other package.

    Raises:
      InputError: There is a polygon, and no pycocotools.
    """
    if any(isinstance(a.get("segmentation"), list) for a in annotations):
        _pycocotools()


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError(
            "polygons of COCO need pycocotools, which is not installed: "
            'pip install "fpn_jax[detection]"'
        ) from error
    return mask


def _decode(shape: Any, size: Size, about: str) -> np.ndarray:
    """Returns the pixels of a segmentation, bool `[H, W]`."""
    if not shape:
        raise ValueError(
            f"{about} is missing, so its pixels would be background: add it, or give "
            "--config.data.source.fields=\"('boxes',)\""
        )
    if isinstance(shape, list):
        return _polygons(shape, size, about)
    if not isinstance(shape, dict):
        raise ValueError(f"{about} is neither a list of polygons nor run lengths")
    height, width = size
    if shape.get("size") != [height, width]:
        raise ValueError(
            f"{about} has the size {shape.get('size')}; the height and width of the "
            f"image are [{height}, {width}]"
        )
    counts = shape.get("counts")
    runs = _runs(counts, about) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int for run in runs):
        raise ValueError(f"{about} has counts that are neither a list nor a text")
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(
            f"{about} has run lengths for {sum(runs)} pixels; the image has "
            f"{height * width}"
        )
    # Runs go down the columns, and alternate from the background on.
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(width, height).T


def _runs(text: str, about: str) -> list[int]:
    """Returns the run lengths of a text.

    A character has five bits of a number, the lowest first, and a bit that says whether
    others follow; numbers are signed. From the fourth on they are differences to the
    number before the last one. pycocotools decodes a text of too few pixels as well,
    and leaves the others undefined.
    """
    runs: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits >= _MAX_BITS:
            raise ValueError(f"{about} has a text of counts that is no run length")
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << bits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    if bits:
        raise ValueError(f"{about} has a text of counts that ends within a number")
    return runs


def _polygons(polygons: Sequence[Any], size: Size, about: str) -> np.ndarray:
    height, width = size
    # Without this limit, drawing would take memory for every pixel of a far edge.
    far = 2 * max(size)
    for number, polygon in enumerate(polygons):
        wanted = isinstance(polygon, list) and len(polygon) >= 6
        if not wanted or len(polygon) % 2 or not all(map(is_number, polygon)):
            raise ValueError(
                f"{about}: polygon {number} is no list of x and y of three or more "
                "points"
            )
        if max(map(abs, polygon)) > far:
            raise ValueError(
                f"{about}: polygon {number} is far outside of the image of {width} × "
                f"{height} pixels"
            )
    masks = _pycocotools()
    shape = masks.merge(masks.frPyObjects(polygons, height, width))
    return masks.decode(shape).astype(bool)
