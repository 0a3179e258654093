"""Annotations: validated against `FIELDS` in a record, and padded for a batch."""

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from fpn_jax.data.records import (
    DROPPED,
    FIELDS,
    IGNORE,
    OF_BOXES,
    Record,
    SourceInfo,
)
from fpn_jax.errors import InputError, at_least, unknown

MAX_BOXES = 100
"""Default number of boxes of an image in a batch."""


class Unusable(ValueError):
    """A record lacks what a batch needs; the text is the reason."""


_ARRAYS = {name for name, field in FIELDS.items() if field.shape}
_TYPES = {name: np.dtype(field.dtype).type for name, field in FIELDS.items()}


def _shape_problem(name: str, value: Any, sizes: Mapping[str, int]) -> str:
    """Returns what is wrong with the type or the shape of a field; `""` if nothing."""
    field = FIELDS[name]
    if not field.shape:
        integer = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu"
        return "" if integer else f"{value!r} is not an integer"
    axes = [sizes.get(axis, axis) for axis in field.shape]
    expected = f"{field.dtype} [{', '.join(map(str, axes))}] is expected"
    if not isinstance(value, np.ndarray):
        return f"it is of type {type(value).__name__}; {expected}"
    if value.dtype != field.dtype or value.ndim != len(axes):
        return f"it is {value.dtype} {list(value.shape)}; {expected}"
    fits = zip(value.shape, axes, strict=True)
    if any(size != axis for size, axis in fits if not isinstance(axis, str)):
        return f"it is {value.dtype} {list(value.shape)}; {expected}"
    return ""


def _sizes(record: Record, info: SourceInfo) -> dict[str, int]:
    height, width = record["image"].shape[:2]
    sizes = {"H": height, "W": width, "K": len(info.landmark_names)}
    if isinstance(boxes := record.get("boxes"), np.ndarray) and boxes.ndim:
        sizes["N"] = len(boxes)
    return sizes


def _index_problem(value: Any, classes: Collection[str], least: int) -> str:
    wrong = [v for v in np.ravel(value).tolist() if not least <= v < len(classes)]
    if not wrong:
        return ""
    return f"{wrong[0]} is not the index of one of the {len(classes)} classes"


def _mask_problem(mask: np.ndarray, info: SourceInfo) -> str:
    values = np.unique(mask)
    wrong = values[(values >= len(info.mask_classes)) & (values != IGNORE)]
    if not len(wrong):
        return ""
    names = ", ".join(info.mask_classes)
    return f"the value {wrong[0]} has no class; the classes from 0 are {names}"


def _boxes_problem(boxes: np.ndarray, height: int, width: int) -> str:
    x0, y0, x1, y1 = boxes.T
    # `~(a < b)` instead of `a >= b`: it is true for NaN.
    for wrong, rule in (
        (~np.isfinite(boxes).all(axis=1), "has a number that is not finite"),
        (~((x0 < x1) & (y0 < y1)), "is empty or reversed: x0 < x1 and y0 < y1"),
        (
            (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height),
            f"reaches beyond the image of {width} × {height} pixels",
        ),
    ):
        if wrong.any():
            first = int(wrong.argmax())
            return f"box {first}, {boxes[first].tolist()}, {rule}"
    return ""


def _landmarks_problem(points: np.ndarray, height: int, width: int, names) -> str:
    x, y, visible = points.T
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    for wrong, rule in (
        (~np.isfinite(points).all(axis=1), "has a number that is not finite"),
        (~np.isin(visible, (0, 1)), "has a visibility other than 0 and 1"),
        (
            (visible == 1) & outside,
            f"is visible, but outside of the image of {width} × {height} pixels",
        ),
    ):
        if wrong.any():
            first = int(wrong.argmax())
            return f"landmark {names[first]!r}, {points[first].tolist()}, {rule}"
    return ""


def _value_problem(name: str, value: Any, record: Record, info: SourceInfo) -> str:
    """Returns which value of a field of the right shape is wrong; `""` if none."""
    height, width = record["image"].shape[:2]
    match name:
        case "label":
            return _index_problem(value, info.classes, 0)
        case "box_labels":
            return _index_problem(value, info.classes, -1)
        case "box_crowd":
            wrong = value[~np.isin(value, (0, 1))]
            return f"{wrong[0]} is neither 0 nor 1" if len(wrong) else ""
        case "box_identities":
            wrong = value[value < -1]
            return f"{wrong[0]} is below -1" if len(wrong) else ""
        case "mask":
            return _mask_problem(value, info)
        case "boxes":
            return _boxes_problem(value, height, width)
        case "landmarks":
            return _landmarks_problem(value, height, width, info.landmark_names)
        case _:
            return "" if value >= 0 else f"{value} is negative"


def problems(record: Record, info: SourceInfo) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with the annotations of a record.

    A field that is absent or None is not annotated, and not wrong.

    Args:
      record: From the source, before any augmentation.
      info: The info of the record's source.

    Yields:
      Name of the field, and the rule that it breaks, with the value.
    """
    sizes = _sizes(record, info)
    for name in info.fields:
        value = record.get(name)
        if value is None:
            continue
        problem = _shape_problem(name, value, sizes)
        problem = problem or _value_problem(name, value, record, info)
        if problem:
            yield name, problem


@dataclasses.dataclass(frozen=True)
class Layout:
    """The annotations of a batch and their fixed shapes.

    Attributes:
      info: The info of the source.
      fields: Names of `FIELDS`, in the order of that table.
      max_boxes: Number of boxes of each image. Fewer boxes are padded; of more boxes
        the largest are kept.

    Raises:
      InputError: A field is unknown or not in the source, or `max_boxes` is below 1.
    """

    info: SourceInfo
    fields: tuple[str, ...]
    max_boxes: int = MAX_BOXES

    @classmethod
    def of(
        cls, info: SourceInfo, fields: Collection[str], max_boxes: int = MAX_BOXES
    ) -> "Layout":
        """Returns the layout of some fields, given in any order."""
        for name in fields:
            if name not in FIELDS:
                raise unknown("field", name, FIELDS)
            if name not in info.fields:
                raise InputError(
                    f"this data has no {name!r}, which the task needs; its fields are "
                    f"{', '.join(info.fields)}"
                )
        at_least("max_boxes", max_boxes, 1)
        return cls(info, tuple(name for name in FIELDS if name in fields), max_boxes)

    @functools.cached_property
    def _read(self) -> tuple[str, ...]:
        """The fields that are read; values of boxes need their boxes."""
        if "boxes" not in self.fields and set(OF_BOXES) & set(self.fields):
            return (*self.fields, "boxes")
        return self.fields

    def take(self, record: Record) -> Record:
        """Returns the part of a record that an augmentation needs.

        Raises:
          Unusable: An annotation is missing, or has another shape or type.
        """
        taken = {"image": record["image"]}
        for name in self._read:
            taken[name] = value = record.get(name)
            if value is None:
                raise Unusable(f"it has no {name!r} annotation")
            # A number has no shape to check: reading labels alone stays fast.
            if name in _ARRAYS:
                sizes = _sizes(record, self.info)
                if problem := _shape_problem(name, value, sizes):
                    raise Unusable(f"{name}: {problem}")
        if "landmarks" in self.fields:
            taken["mirrored"] = self.info.mirrored
        return taken

    def row(self, record: Record) -> dict[str, np.ndarray]:
        """Returns the fields of a record of the final size, padded.

        Returns:
          Field → its array without the batch dimension; where boxes are read also
          `DROPPED`, int32 `[2]`: boxes out of view, and boxes beyond `max_boxes`.
        """
        row, kept = {}, None
        if "boxes" in self._read:
            kept = self._largest(record["boxes"])
            over = len(record["boxes"]) - len(kept)
            row[DROPPED] = np.array([record.get(DROPPED, 0), over], np.int32)
        for name in self.fields:
            if name not in _ARRAYS:
                row[name] = _TYPES[name](record[name])
            elif name == "boxes" or name in OF_BOXES:
                row[name] = self._padded(name, record, record[name][kept])
            else:
                row[name] = self._padded(name, record, record[name])
        return row

    def _largest(self, boxes: np.ndarray) -> np.ndarray:
        """Returns the indices of the largest boxes, in increasing order."""
        if len(boxes) <= self.max_boxes:
            return np.arange(len(boxes))
        sides = boxes[:, 2:] - boxes[:, :2]
        order = np.argsort(-sides.prod(axis=1), kind="stable")
        return np.sort(order[: self.max_boxes])

    def empty(self, image_size: int) -> dict[str, np.ndarray]:
        """Returns the row of an example that is padding."""
        row = {name: self._padding(name, image_size) for name in self.fields}
        return row | ({DROPPED: np.zeros(2, np.int32)} if "boxes" in self._read else {})

    def _padding(self, name: str, image_size: int) -> np.ndarray:
        sizes = {
            "H": image_size,
            "W": image_size,
            "N": self.max_boxes,
            "K": len(self.info.landmark_names),
        }
        field = FIELDS[name]
        if not field.shape:
            return _TYPES[name](field.padding)
        shape = [sizes.get(axis, axis) for axis in field.shape]
        return np.full(shape, field.padding, field.dtype)

    def _padded(self, name: str, record: Record, value: np.ndarray) -> np.ndarray:
        padded = self._padding(name, record["image"].shape[0])
        padded[: len(value)] = value
        return padded
