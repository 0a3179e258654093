"""Boxes as COCO's files of results list them."""

from typing import Any

import numpy as np

from fpn_jax.views.base import Info


def coco_result(
    corners: np.ndarray, label: int, score: float, info: Info
) -> dict[str, Any]:
    """Returns an entry of a file of results, without its image.

    Args:
      corners: `(x0, y0, x1, y1)` in pixels.
      label: Index of the class, 0 or more.
      score: The score, in [0, 1].
      info: What the data say about their records.

    Returns:
      `category_id`, the number that the data give the class; `bbox` as left, top, width
      and height; and `score`.
    """
    x0, y0, x1, y1 = map(float, corners)
    return {
        "category_id": info.class_ids[label] if info.class_ids else label + 1,
        "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
        "score": round(score, 6),
    }
