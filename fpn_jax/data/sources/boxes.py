"""Images with boxes in files of VOC, LabelMe or YOLO, or in a CSV file."""

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fpn_jax.data import files
from fpn_jax.data.images import decode
from fpn_jax.data.records import SPLITS, AbsentSplit, SourceInfo
from fpn_jax.data.sources import labelme, table, voc, yolo
from fpn_jax.data.sources.annotated import (
    BOX_VALUES,
    AnnotatedImages,
    Boxes,
    Frame,
    Item,
    hashed_split,
    refuse_empty,
    refuse_repeated,
)
from fpn_jax.errors import InputError, one_of, unknown

Reader = Callable[[Any], Boxes]
"""Reads the annotation of a photograph; raises ValueError with the reason."""
READERS: dict[str, Reader] = {".xml": voc.read_voc, ".json": labelme.read_labelme}
"""Suffix of files of annotations, whose classes have names → their reader."""


class BoxesSource(AnnotatedImages):
    """Photographs with boxes: a folder of annotations, or one table for all.

    A photograph `NAME.jpg` belongs to `NAME.xml` (VOC), `NAME.json` (LabelMe) or
    `NAME.txt` (YOLO), or to the lines of the table with this name; photographs and
    annotations may be at any depth. A photograph without an annotation is omitted and
    counted, because nobody may have looked at it; one whose annotation has no box shows
    no object.
    `validate_fraction` and `test_fraction` are held out by a hash of the name.

    Args:
      root: Folder of the photographs.
      split: `train`, `validate` or `test`.
      annotations: A folder of `.xml`, `.json` or `.txt` files, or a `.csv` file; a
        relative path is relative to `root`.
      classes: Names of the classes; `()` takes all names in the annotations, sorted.
        Files of YOLO have numbers: the names are in the order of the numbers, and `()`
        reads them from `data.yaml` or `classes.txt`.
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
        refuse_repeated(classes, "data.source.classes: the name")
        folder = Path(root)
        if not os.fspath(root) or not folder.is_dir():
            raise InputError(
                f"data.root is {os.fspath(root)!r}; give the folder of the "
                "photographs: --config.data.root=DIR"
            )
        found, read, classes = _annotations(
            folder / annotations, folder, csv_origin, tuple(classes)
        )
        photographs = _photographs(folder)
        names = sorted(photographs.keys() & found.keys())
        classes = classes or _classes((found[name] for name in names), read)
        if split == "test" and not test_fraction:
            raise AbsentSplit("data.source.test_fraction is 0, so there is no test")
        items = [
            Item(
                str(photographs[name]),
                functools.partial(_read, found[name], read, classes, name),
            )
            for name in hashed_split(names, split, validate_fraction, test_fraction)
        ]
        both = f"{len(photographs)} photographs and {len(found)} annotations"
        refuse_empty(items, split, root, f"there are {both}, {len(names)} by one name")
        omitted = len(photographs) - len(names)
        alone = sorted(found.keys() - photographs.keys())
        super().__init__(
            items,
            SourceInfo(classes, ("boxes", *BOX_VALUES)),
            notes=[
                f"{len(alone)} annotations have no photograph: {', '.join(alone[:3])}"
            ]
            * bool(alone),
            remarks=[f"{omitted} photographs have no annotation and are omitted"]
            * bool(omitted),
            background=background,
            encoded=encoded,
        )


Found = str | Boxes
"""The file of a photograph's annotation, or its boxes where one table has all."""


def _annotations(
    path: Path, root: Path, origin: int, classes: tuple[str, ...]
) -> tuple[dict[str, Found], Reader, tuple[str, ...]]:
    """Returns name of a photograph → its file or its boxes, a reader, and the classes.

    The classes are those that are given, or those of a file of names; `()` if they
    are to be collected from the annotations.
    """
    if not path.exists():
        raise InputError(
            f"data.source.annotations is {path}, which does not exist; give a .csv "
            "file or a folder of annotations, relative to data.root"
        )
    if path.is_file() and path.suffix.lower() == ".csv":
        return table.read_table(str(path), origin), _as_it_is, classes
    kinds: dict[str, dict[str, str]] = {suffix: {} for suffix in (*READERS, ".txt")}
    for one in sorted(path.rglob("*")) if path.is_dir() else ():
        found = kinds.get(one.suffix.lower())
        if found is None or not _visible(one) or one.name in yolo.LISTS:
            continue
        if one.stem in found:
            raise InputError(
                f"{found[one.stem]} and {one} have the same name, by which their "
                "photograph is found; keep one"
            )
        found[one.stem] = str(one)
    there = {suffix: found for suffix, found in kinds.items() if found}
    if not there:
        hint = ""
        if path.is_file() and path.suffix.lower() == ".json":
            hint = "; a file of COCO is read by --config.data.source.name=coco"
        raise InputError(
            f"data.source.annotations is {path}, which is neither a .csv file nor a "
            f"folder with {', '.join(kinds)} files{hint}"
        )
    if len(there) > 1:
        counts = " and ".join(f"{len(f)} {suffix} files" for suffix, f in there.items())
        raise InputError(f"{path} has {counts}; give a folder with one kind")
    ((suffix, found),) = there.items()
    if suffix in READERS:
        return found, READERS[suffix], classes
    classes = classes or yolo.class_names(path, root)
    return found, functools.partial(yolo.read_yolo, classes=classes), classes


def _as_it_is(boxes: Boxes) -> Boxes:
    return boxes


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


def _classes(found: Iterable[Found], read: Reader) -> tuple[str, ...]:
    """Returns all names in the annotations, sorted."""
    names: set[str] = set()
    for one in found:
        try:
            names.update(read(one).names)
        except ValueError:
            # The record names what is wrong with this file, when it is read.
            continue
    return tuple(sorted(names)) or ("object",)


def _read(
    found: Found, read: Reader, classes: tuple[str, ...], name: str, frame: Frame
) -> dict[str, Any]:
    return read(found).in_image(frame, classes, f"the annotation of {name}")
