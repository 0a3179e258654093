"""Photographs of cats with nine points each, in `.cat` files."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from fpn_jax.data import files
from fpn_jax.data.images import decode, reading
from fpn_jax.data.records import SPLITS, AbsentSplit, SourceInfo
from fpn_jax.data.sources.annotated import (
    AnnotatedImages,
    Frame,
    Item,
    hashed_split,
    refuse_empty,
)
from fpn_jax.errors import InputError, unknown

POINTS = (
    "left eye",
    "right eye",
    "mouth",
    "left ear base",
    "left ear tip",
    "left ear inner base",
    "right ear inner base",
    "right ear tip",
    "right ear base",
)
"""Names of the points in the order of a file; left and right are the viewer's."""
MIRRORED = {
    "left eye": "right eye",
    "left ear base": "right ear base",
    "left ear tip": "right ear tip",
    "left ear inner base": "right ear inner base",
}
"""Points that change places in a mirrored image."""
FIVE = ("left eye", "right eye", "mouth", "left ear tip", "right ear tip")
"""The points that drawn animals have too, in their order; the mouth is by the nose."""


class CatPointsSource(AnnotatedImages):
    """Photographs `NAME.jpg` with `NAME.jpg.cat`, as the CAT data set unpacks.

    "Cat Head Detection", Zhang, Sun and Tang, ECCV 2008. A file has a 9 and nine pairs
    of pixel numbers from 0, whose centres are at a half: `x` becomes `x + 0.5`. A point
    outside of the photograph is not visible. `validate_fraction` and `test_fraction`
    are held out by a hash of the name.

    Args:
      root: The folder; photographs may be at any depth.
      split: `train`, `validate` or `test`.
      points: Names of the points to use, of `POINTS`, in the order of the landmarks.
      validate_fraction: Share that is held out for validation, in [0, 1).
      test_fraction: Share that is held out for the test, in [0, 1).
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Raises:
      InputError: The folder has no such files, or an argument is invalid.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        *,
        points: tuple[str, ...] = FIVE,
        validate_fraction: float = 0.15,
        test_fraction: float = 0.0,
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
    ):
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        for name in points:
            if name not in POINTS:
                raise unknown("one of the points", name, POINTS)
        if not points or len(set(points)) < len(points):
            raise InputError(f"points are {tuple(points)}; give one or more, each once")
        folder = Path(root)
        if not os.fspath(root) or not folder.is_dir():
            raise InputError(
                f"data.root is {os.fspath(root)!r}; give the folder with NAME.jpg and "
                "NAME.jpg.cat: --config.data.root=DIR"
            )
        if split == "test" and not test_fraction:
            raise AbsentSplit("data.source.test_fraction is 0, so there is no test")
        found = sorted(files.find_below(folder).images)
        names = [name for name in found if (folder / f"{name}.cat").is_file()]
        order = [POINTS.index(name) for name in points]
        items = [
            Item(
                str(folder / name),
                functools.partial(_read, str(folder / f"{name}.cat"), order),
            )
            for name in hashed_split(names, split, validate_fraction, test_fraction)
        ]
        both = f"{len(found)} images are there, {len(names)} with a .cat file"
        refuse_empty(items, split, root, both)
        omitted = len(found) - len(names)
        super().__init__(
            items,
            SourceInfo(
                ("cat",),
                ("landmarks",),
                landmark_names=tuple(points),
                mirrored=_mirrored(points),
            ),
            remarks=[f"{omitted} images have no .cat file and are omitted"]
            * bool(omitted),
            background=background,
            encoded=encoded,
        )


def _mirrored(points: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the number of the point that each point becomes in a mirrored image.

    Raises:
      InputError: A point of a pair is given without the other one.
    """
    partner = MIRRORED | {right: left for left, right in MIRRORED.items()}
    for name in points:
        if partner.get(name, name) not in points:
            raise InputError(
                f"points has {name!r} without {partner[name]!r}, which it becomes in a "
                "mirrored image; give both"
            )
    return tuple(points.index(partner.get(name, name)) for name in points)


def _read(path: str, order: list[int], frame: Frame) -> dict[str, Any]:
    what = os.path.basename(path)
    if frame.orientation != 1:
        raise ValueError(
            f"the image is turned by Exif orientation {frame.orientation}, and {what} "
            "does not say whether its points are: store the image upright"
        )
    words = reading.read_file(path).decode("ascii", errors="replace").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{what} has a word that is no number") from None
    if len(numbers) != 1 + 2 * len(POINTS) or numbers[0] != len(POINTS):
        raise ValueError(
            f"{what} has {len(numbers)} numbers; a 9 and nine pairs are expected"
        )
    places = np.array(numbers[1:], np.float32).reshape(-1, 2)[order] + 0.5
    height, width = frame.size
    inside = (places >= 0) & (places <= (width, height))
    return {
        "landmarks": np.column_stack([places, inside.all(axis=1)]).astype(np.float32)
    }
