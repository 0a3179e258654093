"""Reads every record once; names bad records, wrong annotations and duplicates."""

import collections
import concurrent.futures
import dataclasses
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fpn_jax.data import duplicates
from fpn_jax.data.annotations import Layout, Unusable, problems
from fpn_jax.data.crops import Letterbox
from fpn_jax.data.images.decode import Undecodable, pixels
from fpn_jax.data.records import OF_BOXES, BadRecord, Source

# Limits the results that wait, and their memory, on sources of any size.
_RECORDS_PER_ROUND = 4096


@dataclasses.dataclass(frozen=True)
class Findings:
    """What `check` found in one split.

    Attributes:
      total: Number of records that were read.
      bad: `(id, reason)` of every record that cannot be decoded, in their order.
      counts: Number of good records by name of the class.
      good: Id, name of the class and fingerprint of every record that can be decoded.
      annotations: `(id, field, rule)` for every annotation that breaks a rule.
      missing: Number of records without an annotation, by name of the field.
      unused: Lines about image files that are no records, such as those of formats that
        cannot be decoded.
      omitted: Lines about files that are omitted on purpose, which is no fault.
    """

    total: int
    bad: tuple[tuple[str, str], ...]
    counts: dict[str, int]
    good: tuple[tuple[str, str, duplicates.Fingerprint], ...] = ()
    annotations: tuple[tuple[str, str, str], ...] = ()
    missing: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unused: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every image file can be decoded and no annotation breaks a rule."""
        return not self.bad and not self.annotations and not self.unused

    def text(self) -> str:
        """Returns one line for every problem, and a closing summary."""
        lines = [f"{id}: {reason}" for id, reason in self.bad]
        lines += [f"{id}: {field}: {rule}" for id, field, rule in self.annotations]
        empty = [name for name, count in self.counts.items() if not count]
        lines += [f"no image of class {shown(name)}" for name in empty]
        lines += [
            f"{count} records have no {field!r} annotation"
            for field, count in self.missing.items()
        ]
        lines += [*self.unused, *self.omitted]
        bad = len(self.bad)
        verdict = f"{bad} cannot be used" if bad else "all can be decoded"
        if self.annotations:
            verdict += f", {len(self.annotations)} annotations are wrong"
        if self.unused:
            verdict += ", but other image files are not used"
        counts = ", ".join(f"{shown(name)} {n}" for name, n in self.counts.items())
        good = f" (good by class: {counts})" if counts else ""
        return "\n".join([*lines, f"{self.total} records: {verdict}{good}"])


class _Found(NamedTuple):
    """What is known about one record; `reason` where it cannot be decoded."""

    reason: str = ""
    label: int | None = None
    fingerprint: duplicates.Fingerprint | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def _examine(source: Source, index: int) -> _Found:
    try:
        record = source[index]
        image = pixels(record["image"])
    except BadRecord as error:
        return _Found(error.reason)
    except Undecodable as error:
        return _Found(str(error))
    wrong = tuple(problems(record, source.info))
    fields = source.info.fields
    missing = tuple(name for name in fields if record.get(name) is None)
    usable = set(fields) - set(missing) - dict(wrong).keys()
    label = int(record["label"]) if "label" in usable else None
    return _Found("", label, duplicates.fingerprint(image), wrong, missing)


def check(source: Source, num_threads: int = 8) -> Findings:
    """Reads every record, in threads, and changes nothing.

    Args:
      source: The records of one split.
      num_threads: Number of records read at the same time, at least 1.

    Returns:
      The bad records, the annotations that break a rule of `records.FIELDS`, the number
      of good records in each class, and the fingerprints of the images.
    """
    classes = source.info.classes if "label" in source.info.fields else ()
    counts, missing = dict.fromkeys(classes, 0), collections.Counter()
    bad, good, annotations = [], [], []
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        for start in range(0, len(source), _RECORDS_PER_ROUND):
            indices = range(start, min(start + _RECORDS_PER_ROUND, len(source)))
            # `map` cancels calls that have not begun, so Ctrl-C ends it at once.
            results = threads.map(lambda index: _examine(source, index), indices)
            for index, found in zip(indices, results, strict=True):
                id = source.id(index)
                if found.fingerprint is None:
                    bad.append((id, found.reason))
                    continue
                name = "" if found.label is None else classes[found.label]
                if name:
                    counts[name] += 1
                good.append((id, name, found.fingerprint))
                annotations += [(id, *problem) for problem in found.annotations]
                missing.update(found.missing)
    return Findings(
        len(source),
        tuple(bad),
        counts,
        tuple(good),
        tuple(annotations),
        dict(missing),
        tuple(getattr(source, "notes", ())),
        tuple(getattr(source, "remarks", ())),
    )


def boxes_of(
    source: Source,
    transform: Letterbox,
    max_boxes: int,
    num_threads: int = 8,
) -> dict[str, np.ndarray]:
    """Returns the boxes of all good records, as a batch has them, without the images.

    Args:
      source: The records of one split.
      transform: Fits images to the network's input.
      max_boxes: Number of boxes of each image; of more boxes the largest are kept.
      num_threads: Number of records read at the same time, at least 1.

    Returns:
      `boxes` float32 `[R, max_boxes, 4]` and the fields of their values that the source
      has, `[R, max_boxes]`.
    """
    fields = [f for f in source.info.fields if f == "boxes" or f in OF_BOXES]
    layout = Layout.of(source.info, fields, max_boxes)

    def read(index: int) -> dict[str, np.ndarray] | None:
        try:
            record = layout.take(source[index])
        except (BadRecord, Unusable):
            return None
        placement = transform.placement(record["image"].shape[:2])
        boxes, kept, _ = placement.boxes(record["boxes"])
        values = {f: record[f][kept] for f in OF_BOXES if f in record}
        nothing = np.zeros((*placement.size, 3), np.uint8)
        return layout.row({"image": nothing, "boxes": boxes, **values})

    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        rows = [row for row in threads.map(read, range(len(source))) if row]
    empty = layout.empty(1)
    return {
        field: np.stack([row[field] for row in rows])
        if rows
        else np.zeros((0, *empty[field].shape), empty[field].dtype)
        for field in layout.fields
    }


def shown(name: str) -> str:
    """Returns the name of a class, in quotes if a part of it cannot be seen.

    Example:
      >>> shown("Dog"), shown("Dog ")
      ('Dog', "'Dog '")
    """
    visible = name.isprintable() and name == " ".join(name.split())
    return name if visible and unicodedata.is_normalized("NFC", name) else ascii(name)


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """An image that occurs in two splits or in two classes.

    Attributes:
      ids: Where its copies are.
      where: Names of the splits and of the classes, as the user reads them.
      bits: Number of differing bits of the perceptual hashes of near-duplicates; None
        for equal pixels.
    """

    ids: tuple[str, ...]
    where: str
    bits: int | None

    def text(self) -> str:
        """Returns one line."""
        kind = "duplicate"
        if self.bits is not None:
            kind = f"near-duplicate ({self.bits} of 256 bits differ)"
        return f"{kind} in {self.where}: {', '.join(self.ids)}"


def find_duplicates(findings: Mapping[str, Findings]) -> list[Duplicate]:
    """Returns the images that occur in two splits or in two classes.

    Args:
      findings: Name of a split → what `check` found there.

    Returns:
      Duplicates first, then near-duplicates, the closest ones first.
    """
    rows = [(split, *row) for split, found in findings.items() for row in found.good]
    prints = [row[-1] for row in rows]
    groups = [(group, None) for group in duplicates.duplicates(prints)]
    near = sorted(duplicates.near_duplicates(prints), key=lambda pair: pair[2])
    groups += [((first, second), bits) for first, second, bits in near]
    found = []
    for indices, bits in groups:
        splits, ids, classes, _ = zip(*(rows[index] for index in indices), strict=True)
        where = [
            " and ".join(dict.fromkeys(names))
            for names in (splits, classes)
            if len(set(names)) > 1
        ]
        if where:
            found.append(Duplicate(ids, ", as ".join(where), bits))
    return found
