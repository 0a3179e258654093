"""Average precision of detections in the two forms of PASCAL VOC, at an IoU of 0.5.

"The PASCAL Visual Object Classes Challenge: a Retrospective" (Everingham et al., IJCV
2015) and the 2007 challenge. The development kit counts whole pixels in its overlaps;
here coordinates are continuous.
"""

from typing import NamedTuple

import numpy as np

from fpn_jax.metrics.average_precision import Boxes

IOU = 0.5
ELEVEN = np.linspace(0, 1, 11)
"""Recalls at which the form of 2007 reads the precision."""
IMAGES_AT_A_TIME = 256


class Result(NamedTuple):
    """AP of each class, float `[K]`; −1 where there is no true box.

    Attributes:
      area: Area under the precision, made monotone, over recall (VOC 2010 to 2012).
      eleven: Mean of the greatest precision at or beyond 11 recalls (VOC 2007).
    """

    area: np.ndarray
    eleven: np.ndarray


def average_precision(
    found: Boxes,
    scores: np.ndarray,
    truth: Boxes,
    crowd: np.ndarray,
    num_classes: int,
) -> Result:
    """Returns both forms of VOC's average precision.

    A detection belongs to the true box of its class that it overlaps most, if the IoU
    is 0.5 or more. The first detection of a box, by score, is right; every further one
    is wrong, unlike with COCO, where it may belong to another box. A detection of a
    difficult box, which is a crowd here, does not count, nor does one of an unknown
    class.

    Args:
      found: The detections.
      scores: Their scores `[R, N]`.
      truth: The true boxes; a box without an area is padding.
      crowd: Whether each true box is a crowd, `[R, M]`.
      num_classes: `K`.
    """
    there = _area(truth.boxes) > 0
    unknown = there & (truth.labels < 0)
    best = np.full(found.labels.shape, -1)
    for start in range(0, len(found.boxes), IMAGES_AT_A_TIME):
        part = slice(start, start + IMAGES_AT_A_TIME)
        overlap = _iou(found.boxes[part], truth.boxes[part])
        own = found.labels[part][..., None] == truth.labels[part][:, None]
        values = np.where(own | unknown[part][:, None], overlap, 0)
        if values.shape[-1]:
            right = values.max(-1) >= IOU
            best[part] = np.where(right, values.argmax(-1), -1)
    forms = [
        _of_class(
            found.labels == label,
            scores,
            best,
            (crowd != 0) | unknown,
            int((there & (truth.labels == label) & (crowd == 0)).sum()),
        )
        for label in range(num_classes)
    ]
    return Result(*np.array(forms).T)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the IoU of all pairs, `[R, N, M]`, of `[R, N, 4]` and `[R, M, 4]`."""
    a, b = a[:, :, None], b[:, None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = _area(np.concatenate([low, high], -1))
    union = _area(a) + _area(b) - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(-1)


def _of_class(
    chosen: np.ndarray,
    scores: np.ndarray,
    best: np.ndarray,
    difficult: np.ndarray,
    total: int,
) -> tuple[float, float]:
    """Returns both forms for one class.

    Args:
      chosen: Detections of the class, bool `[R, N]`.
      scores: `[R, N]`.
      best: The true box of each detection, int `[R, N]`; −1 for none.
      difficult: True boxes that do not count, bool `[R, M]`.
      total: Number of true boxes to be found.
    """
    if not total:
        return -1.0, -1.0
    rows, numbers = np.nonzero(chosen)
    order = np.argsort(-scores[rows, numbers], kind="stable")
    taken, right = set(), []
    for row, place in zip(rows[order], best[rows, numbers][order], strict=True):
        if place >= 0 and difficult[row, place]:
            continue
        right.append(place >= 0 and (row, place) not in taken)
        if place >= 0:
            taken.add((row, place))
    hits = np.cumsum(right)
    recall = hits / total
    precision = hits / np.arange(1, len(hits) + 1)
    # The greatest precision at this recall or beyond it.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    area = float((np.diff(recall, prepend=0) * envelope).sum())
    place = np.searchsorted(recall, ELEVEN)
    eleven = np.append(envelope, 0)[place]
    return area, float(eleven.mean())


def mean(values: np.ndarray) -> float:
    """Returns the mean over the classes with a true box; −1 if there is none.

    Args:
      values: AP of each class, `[K]`.
    """
    counted = values[values >= 0]
    return float(counted.mean()) if len(counted) else -1.0
