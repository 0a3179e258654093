"""Images with boxes and masks in the JSON files of COCO."""

import collections
import functools
import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpn_jax.data import files
from fpn_jax.data.images import decode, exif
from fpn_jax.data.records import SPLITS, AbsentSplit, SourceInfo
from fpn_jax.data.sources import coco_masks
from fpn_jax.data.sources.annotated import (
    BOX_VALUES,
    AnnotatedImages,
    Frame,
    Item,
    check_fields,
    hashed_split,
    refuse_empty,
    refuse_repeated,
)
from fpn_jax.data.sources.coco_file import CocoFile, Image, chosen_of
from fpn_jax.errors import InputError, one_of, unknown

FIELDS = ("boxes", "mask")
MISSING = "photographs of the file do not exist"
OMITTED = "photographs are not in the file and are omitted"
SHOWN = 3
"""Number of names that a line about several files shows."""


class CocoSource(AnnotatedImages):
    """Photographs with a JSON file of COCO: `images`, `annotations`, `categories`.

    Categories are known by their names; class `i` is the `i`-th name in the order of
    their numbers, which need not be contiguous; `info.class_ids` has the numbers. An
    image without an annotation shows no object. A crowd (`iscrowd`) counts in no loss
    and in no metric. A photograph that the file does not name is omitted and counted.

    Args:
      root: Folder of the photographs.
      split: `train`, `validate` or `test`.
      annotations: The JSON file, relative to `root` or to the current folder. A
        photograph is at its `file_name` below `root`; if there is none, it is the only
        one with this name at any depth.
      validate_annotations: The same of another split; without it, `validate_fraction`
        of `annotations` is held out by a hash of the name. Files whose categories
        have other numbers need `classes`, which fixes their order.
      test_annotations: The same for the test.
      classes: Names of the categories to use; `()` takes all. Boxes of others are
        omitted and counted.
      fields: `boxes`, `mask`, or both. A mask has the class of every pixel plus 1, and
        0 for the background. A pixel that several objects cover is of the smallest of
        them; a crowd is ignored. Polygons need pycocotools.
      validate_fraction: Share that is held out for validation, in [0, 1).
      test_fraction: Share that is held out for the test, in [0, 1).
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Attributes:
      image_ids: Number of every record's image in the file.

    Raises:
      InputError: A file does not exist or is no file of COCO, no photograph is found,
        or an argument is invalid.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        *,
        annotations: str = "annotations.json",
        validate_annotations: str = "",
        test_annotations: str = "",
        classes: tuple[str, ...] = (),
        fields: tuple[str, ...] = ("boxes",),
        validate_fraction: float = 0.1,
        test_fraction: float = 0.0,
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
    ):
        one_of("split", split, SPLITS)
        check_fields(fields, FIELDS)
        folder = Path(root)
        if not os.fspath(root) or not folder.is_dir():
            raise InputError(
                f"data.root is {os.fspath(root)!r}; give the folder of the "
                "photographs: --config.data.root=DIR"
            )
        own = {"validate": validate_annotations, "test": test_annotations}
        if split == "test" and not test_annotations and not test_fraction:
            raise AbsentSplit("data.source.test_fraction is 0, so there is no test")
        given = own.get(split) or annotations
        key = f"{split}_annotations" if own.get(split) else "annotations"
        contents = CocoFile.read(_file(folder, given, key))
        names, ids = _classes(contents, classes)
        found, missing, omitted = _found(folder, contents.images)
        shares = {"validate": validate_fraction, "test": test_fraction}
        chosen = _chosen(list(found), split, own, shares)
        images = [image for image in contents.images if image.name in chosen]
        if "mask" in fields:
            for image in images:
                coco_masks.require_polygons(chosen_of(image, contents.names, names))
        items = [
            Item(
                str(found[image.name]),
                functools.partial(_read, contents, image, names, fields),
            )
            for image in images
        ]
        there = f"{given} names {len(contents.images)}, of which {len(found)} exist"
        refuse_empty(items, split, root, there)
        self.image_ids = tuple(image.id for image in images)
        super().__init__(
            items,
            _info(names, ids, fields),
            notes=_line(MISSING, missing),
            remarks=[
                # The file of another split may name them.
                *_line(OMITTED, omitted if not any(own.values()) else ()),
                *_others(contents, images, names),
            ],
            background=background,
            encoded=encoded,
        )


def _chosen(
    names: Sequence[str],
    split: str,
    own: Mapping[str, str],
    shares: Mapping[str, float],
) -> frozenset[str]:
    """Returns the names of a split; one with a file of its own takes no others."""
    if own.get(split):
        return frozenset(names)
    left = (0.0 if own[name] else share for name, share in shares.items())
    return frozenset(hashed_split(names, split, *left))


def _info(
    names: tuple[str, ...], ids: tuple[int, ...], fields: Sequence[str]
) -> SourceInfo:
    """Returns the classes and the fields of the records."""
    masks, boxes = "mask" in fields, "boxes" in fields
    return SourceInfo(
        names,
        ("mask",) * masks + ("boxes", *BOX_VALUES) * boxes,
        mask_classes=("background", *names) * masks,
        class_ids=ids,
    )


def _file(root: Path, given: str, key: str) -> Path:
    for path in (root / given, Path(given)):
        if path.is_file():
            return path
    raise InputError(
        f"data.source.{key} is {given!r}; there is no such file in {root} nor in the "
        "current folder"
    )


def _classes(
    contents: CocoFile, classes: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns the names of the classes, and the numbers of their categories."""
    by_name = {name: number for number, name in contents.names.items()}
    refuse_repeated(classes, "data.source.classes: the name")
    for name in classes:
        if name not in by_name:
            raise unknown("one of data.source.classes", name, by_name)
    names = tuple(classes) or tuple(by_name)
    if not names:
        raise InputError(f"{contents.path} has no category")
    return names, tuple(by_name[name] for name in names)


def _found(
    root: Path, images: Sequence[Image]
) -> tuple[dict[str, Path], list[str], list[str]]:
    """Returns name → path of the photographs, names without one, and other files.

    A photograph belongs to one image. Where its name alone could belong to two images,
    it belongs to none of them.
    """
    there = files.find_below(root).images
    known, same = set(there), collections.Counter(map(os.path.basename, there))
    by_name = {os.path.basename(path): path for path in there}
    exact: dict[str, str] = {}
    for image in images:
        # Files that were written on Windows may have the other slash.
        for path in (image.name, image.name.replace("\\", "/")):
            if posixpath.normpath(path) in known:
                exact[image.name] = posixpath.normpath(path)
                break
    _refuse_shared(exact)
    others = {
        image.name: image.name.replace("\\", "/").rsplit("/", 1)[-1]
        for image in images
        if image.name not in exact
    }
    wanted, taken = collections.Counter(others.values()), set(exact.values())
    found, missing = {}, []
    for image in images:
        path, name = exact.get(image.name), others.get(image.name)
        if path is None and same[name] == wanted[name] == 1:
            path = by_name[name] if by_name[name] not in taken else None
        if path is None:
            missing.append(image.name)
        else:
            found[image.name] = path
    omitted = sorted(known - set(found.values()))
    return {name: root / path for name, path in found.items()}, missing, omitted


def _refuse_shared(paths: Mapping[str, str]) -> None:
    """Refuses two names of images that mean the same file."""
    names: dict[str, str] = {}
    for name, path in paths.items():
        if path in names:
            raise InputError(
                f"the file names {names[path]!r} and {name!r} are both {path}; keep one"
            )
        names[path] = name


def _line(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return [f"{len(names)} {what}: {shown}"]


def _others(
    contents: CocoFile, images: Sequence[Image], classes: Sequence[str]
) -> list[str]:
    """Returns a line about annotations of other classes, or none."""
    total = sum(len(image.annotations) for image in images)
    kept = sum(len(chosen_of(image, contents.names, classes)) for image in images)
    if kept == total:
        return []
    return [f"{total - kept} annotations are of other classes and are omitted"]


def _read(
    contents: CocoFile,
    image: Image,
    classes: Sequence[str],
    fields: Sequence[str],
    frame: Frame,
) -> dict[str, Any]:
    what, found = f"the annotation of {image.name}", {}
    if "boxes" in fields:
        found |= contents.boxes(image, classes).in_image(frame, classes, what)
    if "mask" in fields:
        # A wrong size is refused before a mask of that size is made.
        turn = frame.must_turn(image.size, what)
        objects = [
            (annotation, 1 + classes.index(contents.names[annotation["category_id"]]))
            for annotation in chosen_of(image, contents.names, classes)
        ]
        mask = coco_masks.class_map(objects, image.size)
        if turn:
            mask = exif.upright(mask[..., None], frame.orientation)[..., 0]
        found["mask"] = np.ascontiguousarray(mask)
    return found
