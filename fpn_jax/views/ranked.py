"""Which images a report shows: the worst, the middle and the best ones."""

import numpy as np

EACH = 4
"""Number of images of each kind."""


def ranked(values: np.ndarray, each: int = EACH) -> list[tuple[str, int]]:
    """Returns `(kind, row)` of the worst, the median and the best rows, once each.

    Args:
      values: float `[N]`; larger is better. Rows whose value is NaN are omitted.
      each: Number of rows of each kind.

    Example:
      >>> ranked(np.array([0.9, 0.1, 0.5]), each=1)
      [('worst', 1), ('median', 2), ('best', 0)]
    """
    order = [
        r for r in np.argsort(values, kind="stable").tolist() if values[r] == values[r]
    ]
    middle = max((len(order) - each) // 2, 0)
    chosen: dict[int, str] = {}
    for kind, rows in (
        ("worst", order[:each]),
        ("best", order[::-1][:each]),
        ("median", order[middle : middle + each]),
    ):
        for row in rows:
            chosen.setdefault(row, kind)
    kinds = ("worst", "median", "best")
    return [(k, row) for k in kinds for row, kind in chosen.items() if kind == k]
