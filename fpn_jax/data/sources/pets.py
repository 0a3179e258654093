"""The Oxford-IIIT Pet data set as its archives unpack."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpn_jax.data.images import decode
from fpn_jax.data.records import IGNORE, SPLITS, AbsentSplit, SourceInfo
from fpn_jax.data.sources import voc
from fpn_jax.data.sources.annotated import (
    BOX_VALUES,
    AnnotatedImages,
    Frame,
    Item,
    check_fields,
    hashed_split,
    read_mask,
    refuse_empty,
)
from fpn_jax.errors import InputError, one_of, unknown

CLASSES = ("cat", "dog")
MASK_CLASSES = ("background", "pet")
FIELDS = ("label", "mask", "boxes")
MEANINGS = {"background": 0, "pet": 1, "ignore": IGNORE}
"""What a value of a trimap can mean → the value of the mask."""


class PetsSource(AnnotatedImages):
    """Photographs of cats and dogs with trimaps and head boxes.

    "Cats and Dogs", Parkhi et al., CVPR 2012. The folder contains `images/` and
    `annotations/` with `trimaps/`, `xmls/`, `trainval.txt` and `test.txt`, as the
    archives unpack; other files beside the photographs are not looked at. The lists
    decide which photographs are used. `train.txt` and `validate.txt` are used if both
    are there; else the photographs of `trainval.txt` whose hash is below
    `validate_fraction` are those of `validate`.

    Args:
      root: The folder.
      split: `train`, `validate` or `test`.
      fields: Annotations that a record must have: `label` (cat or dog), `mask`, `boxes`
        (of the head, which only part of the photographs have). A photograph without
        one of them is omitted and counted.
      trimap: What the values 1, 2 and 3 of a trimap mean: "pet", "background" or
        "ignore". The value 3 is the border of the animal.
      validate_fraction: Share of `trainval.txt` that is held out, in (0, 1).
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Raises:
      InputError: The folder has another layout, or an argument is invalid.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        *,
        fields: tuple[str, ...] = ("label", "mask"),
        trimap: tuple[str, str, str] = ("pet", "background", "pet"),
        validate_fraction: float = 0.1,
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
    ):
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        check_fields(fields, FIELDS)
        for meaning in trimap:
            one_of("one of the values of trimap", meaning, MEANINGS)
        table = np.full(256, -1, np.int64)
        table[1:4] = [MEANINGS[meaning] for meaning in trimap]
        folder = Path(root) if os.fspath(root) else None
        if folder is None or not (folder / "annotations").is_dir():
            raise InputError(
                f"data.root is {os.fspath(root)!r}; give the folder with images/ and "
                "annotations/ of the Oxford-IIIT Pet data set: --config.data.root=DIR"
            )
        listed = _listed(folder, split, validate_fraction)
        items, without = [], {}
        for name, species in listed.items():
            missing = _missing(folder, name, fields)
            if missing:
                without[missing] = without.get(missing, 0) + 1
                continue
            read = functools.partial(_read, folder, name, species, fields, table)
            items.append(Item(str(folder / "images" / f"{name}.jpg"), read))
        refuse_empty(items, split, root, f"{len(listed)} photographs are in its list")
        with_boxes = BOX_VALUES if "boxes" in fields else ()
        mask_classes = MASK_CLASSES if "mask" in fields else ()
        super().__init__(
            items,
            SourceInfo(CLASSES, (*fields, *with_boxes), mask_classes=mask_classes),
            remarks=[
                f"{count} photographs have no {field} and are omitted"
                for field, count in without.items()
            ],
            background=background,
            encoded=encoded,
        )


def _listed(root: Path, split: str, validate_fraction: float) -> dict[str, int]:
    """Returns name of a photograph → its species, 1 or 2, in the order of the list."""
    folder = root / "annotations"
    if split != "test" and all((folder / f"{n}.txt").is_file() for n in SPLITS[:2]):
        return _read_list(folder / f"{split}.txt")
    path = folder / ("test.txt" if split == "test" else "trainval.txt")
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in folder.glob("*.txt"))) or "no list"
        error = AbsentSplit if split == "test" else InputError
        raise error(f"{path} is missing; {folder} has {there}")
    listed = _read_list(path)
    if split == "test":
        return listed
    names = hashed_split(listed, split, validate_fraction, 0.0)
    return {name: listed[name] for name in names}


def _read_list(path: Path) -> dict[str, int]:
    listed: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 3 or words[2] not in ("1", "2"):
            raise InputError(
                f"{path}, line {number}: {line!r} is not NAME CLASS SPECIES BREED"
            )
        if words[0] in listed:
            raise InputError(f"{path}, line {number}: {words[0]} is listed twice")
        listed[words[0]] = int(words[2])
    return listed


def _missing(root: Path, name: str, fields: Sequence[str]) -> str:
    """Returns the first annotation that a photograph lacks; `""` if it has all."""
    annotations = root / "annotations"
    files = {
        "mask": annotations / "trimaps" / f"{name}.png",
        "boxes": annotations / "xmls" / f"{name}.xml",
    }
    return next((f for f in fields if f in files and not files[f].is_file()), "")


def _read(
    root: Path,
    name: str,
    species: int,
    fields: Sequence[str],
    table: np.ndarray,
    frame: Frame,
) -> dict[str, Any]:
    annotations, found = root / "annotations", {}
    if "label" in fields:
        found["label"] = species - 1
    if "mask" in fields:
        path = str(annotations / "trimaps" / f"{name}.png")
        names = "a trimap has the values 1, 2 and 3"
        found["mask"] = read_mask(path, frame, table, names)
    if "boxes" in fields:
        path = str(annotations / "xmls" / f"{name}.xml")
        found |= voc.read_voc(path).in_image(frame, CLASSES, f"{name}.xml")
    return found
