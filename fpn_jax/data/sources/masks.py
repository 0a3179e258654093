"""Images and masks of the same names in two folders."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpn_jax.data import files
from fpn_jax.data.images import decode
from fpn_jax.data.records import IGNORE, SPLITS, AbsentSplit, SourceInfo
from fpn_jax.data.sources import layout
from fpn_jax.data.sources.annotated import (
    AnnotatedImages,
    Frame,
    Item,
    hashed_split,
    read_mask,
    refuse_empty,
)
from fpn_jax.errors import InputError, unknown, within

SHOWN = 3
"""Number of names that a line about several files shows."""


class MasksSource(AnnotatedImages):
    """Photographs with a mask each: `images/a.jpg` and `masks/a.png`.

    There are two layouts: `root/Train/images`, `root/Train/masks`, where the folders of
    splits have the names that `layout.split_named` knows, and `root/images`,
    `root/masks`, of which `validate_fraction` and `test_fraction` are held out by a
    hash of the name. A mask is grey or has a palette; its values are numbers.

    Args:
      root: The folder.
      split: `train`, `validate` or `test`.
      mask_classes: Name of a class → its value in the files, or a tuple of values. The
        first class is the background. A value that no class has is refused.
      ignore: Values of pixels that count in no loss and in no metric.
      images: Name of the folder of the photographs.
      masks: Name of the folder of the masks.
      validate_fraction: Share that is held out for validation, in [0, 1).
      test_fraction: Share that is held out for the test, in [0, 1).
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Raises:
      InputError: The folder has another layout, two files have one name, or an argument
        is invalid.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        *,
        mask_classes: Mapping[str, int | tuple[int, ...]],
        ignore: tuple[int, ...] = (255,),
        images: str = "images",
        masks: str = "masks",
        validate_fraction: float = 0.1,
        test_fraction: float = 0.0,
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
    ):
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        table = _table(mask_classes, ignore)
        folder, hashed = _folder(root, split, images, masks)
        photographs = _by_stem(folder / images)
        found = _by_stem(folder / masks)
        pairs = sorted(photographs.keys() & found.keys())
        if hashed:
            pairs = hashed_split(pairs, split, validate_fraction, test_fraction)
            if split == "test" and not test_fraction:
                raise AbsentSplit(
                    f"{root} has no folder 'test', and data.source.test_fraction is 0"
                )
        values = ", ".join(f"{name} {value}" for name, value in mask_classes.items())
        items = [
            Item(
                str(photographs[stem]),
                functools.partial(_read, str(found[stem]), table, values),
            )
            for stem in pairs
        ]
        both = f"{len(photographs)} images and {len(found)} masks, by the same names"
        refuse_empty(items, split, folder, f"there are {both}")
        names = tuple(mask_classes)
        super().__init__(
            items,
            SourceInfo(names, ("mask",), mask_classes=names),
            notes=[
                *_alone("images", "mask", photographs.keys() - found.keys()),
                *_alone("masks", "image", found.keys() - photographs.keys()),
            ],
            background=background,
            encoded=encoded,
        )


def _table(
    mask_classes: Mapping[str, int | tuple[int, ...]], ignore: tuple[int, ...]
) -> np.ndarray:
    """Returns int `[256]`: value → class, 255 for ignored ones, −1 for others."""
    table = np.full(256, -1, np.int64)
    if len(mask_classes) < 2:
        raise InputError(
            f"mask_classes is {dict(mask_classes)}; name two classes or more with "
            "their values, such as {'background': 0, 'pet': 1}"
        )
    named = [
        *(
            (name, label, value)
            for label, (name, value) in enumerate(mask_classes.items())
        ),
        ("ignore", IGNORE, ignore),
    ]
    owner: dict[int, str] = {}
    for name, label, values in named:
        for value in values if isinstance(values, list | tuple) else (values,):
            within(f"the value of {name!r} in mask_classes", value, 0, 255)
            if value in owner:
                raise InputError(
                    f"the value {value} of a mask belongs to {owner[value]!r} and to "
                    f"{name!r}; give it to one"
                )
            owner[value] = name
            table[value] = label
    return table


def _folder(
    root: str | os.PathLike, split: str, images: str, masks: str
) -> tuple[Path, bool]:
    """Returns the folder of a split, and whether its files are divided by a hash."""
    path = Path(root)
    if not os.fspath(root) or not path.is_dir():
        raise InputError(
            f"data.root is {os.fspath(root)!r}; give the folder with {images}/ and "
            f"{masks}/: --config.data.root=DIR"
        )
    if (path / images).is_dir() and (path / masks).is_dir():
        return path, True
    splits = {
        layout.split_named(folder.name): folder
        for folder in files.subfolders(path)
        if (folder / images).is_dir() and (folder / masks).is_dir()
    }
    if split in splits:
        return splits[split], False
    there = ", ".join(folder.name for folder in files.subfolders(path)) or "no folder"
    error = AbsentSplit if split == "test" and splits else InputError
    raise error(
        f"{path} has no {images}/ and {masks}/ for the split {split!r}; it has {there}"
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """Returns the name of an image without its suffix → its path.

    Raises:
      InputError: Two files have one name.
    """
    found: dict[str, Path] = {}
    for name in sorted(files.find_below(folder).images):
        stem = os.path.splitext(name)[0]
        if stem in found:
            raise InputError(
                f"{found[stem]} and {folder / name} have the same name; keep one"
            )
        found[stem] = folder / name
    return found


def _alone(kind: str, other: str, names: Any) -> list[str]:
    """Returns a line about files without a partner, or none."""
    if not names:
        return []
    shown = ", ".join(sorted(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return [f"{len(names)} {kind} without {other} are not used: {shown}"]


def _read(path: str, table: np.ndarray, values: str, frame: Frame) -> dict[str, Any]:
    names = f"the values of the classes are {values}"
    return {"mask": read_mask(path, frame, table, names)}
