"""Images with boxes in VOC XML files or in a CSV file."""

import functools
import os
from pathlib import Path
from typing import Any

from fpn_jax.data import files
from fpn_jax.data.images import decode
from fpn_jax.data.records import SPLITS, AbsentSplit, SourceInfo
from fpn_jax.data.sources import voc
from fpn_jax.data.sources.annotated import (
    AnnotatedImages,
    Frame,
    Item,
    hashed_split,
    refuse_empty,
)
from fpn_jax.errors import InputError, one_of, unknown


class BoxesSource(AnnotatedImages):
    """Photographs with boxes: a folder of VOC XML files, or one table for all.

    A photograph `NAME.jpg` belongs to `NAME.xml`, or to the lines of the table with
    this name; photographs may be at any depth below the folder. One without an
    annotation is omitted and counted; one whose annotation has no box shows no object.
    `validate_fraction` and `test_fraction` are held out by a hash of the name.

    Args:
      root: Folder of the photographs.
      split: `train`, `validate` or `test`.
      annotations: A folder of `.xml` files or a `.csv` file; a relative path is
        relative to `root`.
      classes: Names of the classes; `()` takes all names in the annotations, sorted.
      csv_origin: 0 if the numbers of the table are continuous coordinates, 1 if they
        count pixels from 1 and include the last one. VOC files always do.
      validate_fraction: Share that is held out for validation, in [0, 1).
      test_fraction: Share that is held out for the test, in [0, 1).
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Raises:
      InputError: A path does not exist, two photographs have one name, no photograph
        has an annotation, or an argument is invalid.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        *,
        annotations: str = "annotations",
        classes: tuple[str, ...] = (),
        csv_origin: int = 0,
        validate_fraction: float = 0.1,
        test_fraction: float = 0.0,
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
    ):
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        one_of("csv_origin", csv_origin, (0, 1))
        folder = Path(root)
        if not os.fspath(root) or not folder.is_dir():
            raise InputError(
                f"data.root is {os.fspath(root)!r}; give the folder of the "
                "photographs: --config.data.root=DIR"
            )
        found = _annotations(folder / annotations, csv_origin)
        photographs = _photographs(folder)
        names = sorted(photographs.keys() & found.keys())
        classes = tuple(classes) or _classes(found[name] for name in names)
        if split == "test" and not test_fraction:
            raise AbsentSplit("data.source.test_fraction is 0, so there is no test")
        items = [
            Item(
                str(photographs[name]),
                functools.partial(_read, found[name], classes, name),
            )
            for name in hashed_split(names, split, validate_fraction, test_fraction)
        ]
        both = f"{len(photographs)} photographs and {len(found)} annotations"
        refuse_empty(items, split, root, f"there are {both}, {len(names)} by one name")
        omitted = len(photographs) - len(names)
        alone = sorted(found.keys() - photographs.keys())
        super().__init__(
            items,
            SourceInfo(classes, ("boxes", *voc.BOX_VALUES)),
            notes=[
                f"{len(alone)} annotations have no photograph: {', '.join(alone[:3])}"
            ]
            * bool(alone),
            remarks=[f"{omitted} photographs have no annotation and are omitted"]
            * bool(omitted),
            background=background,
            encoded=encoded,
        )


def _annotations(path: Path, origin: int) -> dict[str, "str | voc.Boxes"]:
    """Returns the name of a photograph → its XML file or its boxes."""
    if path.is_file() and path.suffix.lower() == ".csv":
        return voc.read_table(str(path), origin)
    if path.is_dir():
        found = {p.stem: str(p) for p in sorted(path.rglob("*.xml")) if _visible(p)}
        if found:
            return found
    raise InputError(
        f"data.source.annotations is {path}, which is neither a .csv file nor a folder "
        "with .xml files"
    )


def _visible(path: Path) -> bool:
    return not files.is_junk(path.name)


def _photographs(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in sorted(files.find_below(root).images):
        stem = Path(name).stem
        if stem in found:
            raise InputError(
                f"{found[stem]} and {root / name} have the same name, by which their "
                "annotations are found; rename one"
            )
        found[stem] = root / name
    return found


def _classes(found: Any) -> tuple[str, ...]:
    """Returns all names in the annotations, sorted."""
    names: set[str] = set()
    for one in found:
        try:
            names.update((voc.read_voc(one) if isinstance(one, str) else one).names)
        except ValueError:
            # The record names what is wrong with this file, when it is read.
            continue
    return tuple(sorted(names)) or ("object",)


def _read(
    found: "str | voc.Boxes", classes: tuple[str, ...], name: str, frame: Frame
) -> dict[str, Any]:
    boxes = voc.read_voc(found) if isinstance(found, str) else found
    return boxes.in_image(frame, classes, f"the annotation of {name}")
