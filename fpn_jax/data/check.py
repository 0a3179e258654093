"""Decodes every record once, to name those that are not whole or there twice."""

import concurrent.futures
import dataclasses
from collections.abc import Mapping

from fpn_jax.data import duplicates
from fpn_jax.data.records import BadRecord, Source

# Bounds the results in waiting, and with them the memory, on sources of any size.
_RECORDS_PER_ROUND = 4096


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
      total: Number of records that were decoded.
      bad: `(id, reason)` of every record that does not decode whole, in their order.
      counts: Number of good records by name of the class.
      good: Id, name of the class and fingerprint of every good record.
    """

    total: int
    bad: tuple[tuple[str, str], ...]
    counts: dict[str, int]
    good: tuple[tuple[str, str, duplicates.Fingerprint], ...] = ()

    def text(self) -> str:
        """Returns one line for every bad record, and a closing summary."""
        counts = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        verdict = f"{len(self.bad)} cannot be used" if self.bad else "all decode whole"
        return "\n".join(
            [f"{id}: {reason}" for id, reason in self.bad]
            + [f"no image of class {name}" for name, n in self.counts.items() if not n]
            + [f"{self.total} records: {verdict} (good by class: {counts})"]
        )


def check(source: Source, num_threads: int = 8) -> Report:
    """Decodes every record, in threads, and changes nothing.

    Args:
      source: The records of one split.
      num_threads: Number of records decoded at the same time, at least 1.

    Returns:
      The bad records, the number of good ones in each class, and their fingerprints.
    """

    def look_at(index: int) -> tuple[int, duplicates.Fingerprint] | str:
        try:
            record = source[index]
        except BadRecord as error:
            return error.reason
        return record["label"], duplicates.fingerprint(record["image"])

    bad, good = [], []
    counts = dict.fromkeys(source.classes, 0)
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        for start in range(0, len(source), _RECORDS_PER_ROUND):
            indices = range(start, min(start + _RECORDS_PER_ROUND, len(source)))
            # map cancels what has not begun when it is left, so Ctrl-C ends at once.
            results = threads.map(look_at, indices)
            for index, result in zip(indices, results, strict=True):
                if isinstance(result, str):
                    bad.append((source.id(index), result))
                    continue
                name = source.classes[result[0]]
                counts[name] += 1
                good.append((source.id(index), name, result[1]))
    return Report(len(source), tuple(bad), counts, tuple(good))


@dataclasses.dataclass(frozen=True)
class Twice:
    """An image that stands under two splits or under two classes.

    Attributes:
      ids: Where it is.
      under: The names of the splits and of the classes, as the user reads them.
      bits: How many bits their looks differ in; None of equal pixels.
    """

    ids: tuple[str, ...]
    under: str
    bits: int | None

    def text(self) -> str:
        """Returns one line."""
        if self.bits is None:
            return f"the same image in {self.under}: {', '.join(self.ids)}"
        return (
            f"images that look alike ({self.bits} of 256 bits differ) in {self.under}: "
            f"{', '.join(self.ids)}"
        )


def twice(reports: Mapping[str, Report]) -> list[Twice]:
    """Returns the images that stand under two splits or two classes.

    Args:
      reports: Name of a split → what `check` found there.

    Returns:
      Those of equal pixels first, then those that look alike, the closest first.
    """
    rows = [(split, *row) for split, found in reports.items() for row in found.good]
    prints = [row[-1] for row in rows]
    groups = [(places, None) for places in duplicates.equal(prints)]
    closest = sorted(duplicates.alike(prints), key=lambda pair: pair[2])
    groups += [((first, second), bits) for first, second, bits in closest]
    found = []
    for places, bits in groups:
        splits, ids, classes, _ = zip(*(rows[place] for place in places), strict=True)
        under = [
            " and ".join(dict.fromkeys(names))
            for names in (splits, classes)
            if len(set(names)) > 1
        ]
        if under:
            found.append(Twice(ids, ", as ".join(under), bits))
    return found
