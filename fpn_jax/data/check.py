"""Decodes every record of a source once, to name those that are not whole."""

import concurrent.futures
import dataclasses

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
    """

    total: int
    bad: tuple[tuple[str, str], ...]
    counts: dict[str, int]

    def text(self) -> str:
        """Returns one line for every bad record, and a closing summary."""
        counts = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        verdict = f"{len(self.bad)} cannot be used" if self.bad else "all decode whole"
        return "\n".join(
            [f"{id}: {reason}" for id, reason in self.bad]
            + [f"{self.total} records: {verdict} (good by class: {counts})"]
        )


def check(source: Source, num_threads: int = 8) -> Report:
    """Decodes every record, in threads, and changes nothing.

    Args:
      source: The records of one split.
      num_threads: Number of records decoded at the same time, at least 1.

    Returns:
      The bad records and the number of good ones in each class.
    """

    def label_or_reason(index: int) -> int | str:
        try:
            return source[index]["label"]
        except BadRecord as error:
            return error.reason

    bad = []
    counts = dict.fromkeys(source.classes, 0)
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        for start in range(0, len(source), _RECORDS_PER_ROUND):
            indices = range(start, min(start + _RECORDS_PER_ROUND, len(source)))
            # map cancels what has not begun when it is left, so Ctrl-C ends at once.
            results = threads.map(label_or_reason, indices)
            for index, result in zip(indices, results, strict=True):
                if isinstance(result, str):
                    bad.append((source.id(index), result))
                else:
                    counts[source.classes[result]] += 1
    return Report(len(source), tuple(bad), counts)
