"""Which detection found which true box, as COCO's evaluation decides it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

INVENTED, IGNORED = -1, -2
"""Match of a detection that found no true box, and of one inside a crowd."""


class Objects(NamedTuple):
    """The detections and the true boxes of one image, without padding.

    Attributes:
      boxes: float `[D, 4]`, the best score first.
      scores: float `[D]`.
      labels: int `[D]`.
      shown: bool `[D]`, whether the score is high enough to report it.
      true_boxes: float `[M, 4]`.
      true_labels: int `[M]`; −1 where the class is unknown.
      crowd: bool `[M]`, counts neither as found nor as missed.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    shown: np.ndarray
    true_boxes: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of(cls, rows: Mapping[str, np.ndarray], row: int) -> "Objects":
        """Returns the objects of one row of an evaluation."""
        found = rows["box_labels"][row] >= 0
        truth = rows["true_boxes"][row]
        there = (truth[:, 2] > truth[:, 0]) & (truth[:, 3] > truth[:, 1])
        labels = rows["true_labels"][row][there]
        return cls(
            rows["boxes"][row][found],
            rows["box_scores"][row][found],
            rows["box_labels"][row][found],
            rows["box_shown"][row][found],
            truth[there],
            labels,
            (rows["true_crowd"][row][there] != 0) | (labels < 0),
        )

    def only_shown(self) -> "Objects":
        """Returns the objects without the detections that are not reported."""
        chosen = self.shown
        return self._replace(
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            shown=self.shown[chosen],
        )


def iou(boxes: np.ndarray, true_boxes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the overlap of every detection with every true box, `[D, M]`.

    The intersection over the union; with a crowd, over the area of the detection.

    Args:
      boxes: float `[D, 4]`.
      true_boxes: float `[M, 4]`.
      crowd: bool `[M]`.
    """
    low = np.maximum(boxes[:, None, :2], true_boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], true_boxes[None, :, 2:])
    both = np.maximum(high - low, 0).prod(-1)
    own, true = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, true_boxes))
    union = np.where(crowd, own[:, None], own[:, None] + true - both)
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def match(
    objects: Objects, *, threshold: float = 0.5, by_class: bool = True
) -> np.ndarray:
    """Returns the true box that each detection found, int `[D]`.

    The best detection chooses first: the free true box with the greatest overlap, if it
    is at least `threshold`. A detection that found none, but overlaps a crowd, is
    `IGNORED`; every other one is `INVENTED`.

    Args:
      objects: The detections, the best first, and the true boxes.
      threshold: Least IoU.
      by_class: Whether a detection finds only true boxes of its own class.
    """
    overlap = iou(objects.boxes, objects.true_boxes, objects.crowd)
    if by_class:
        known = objects.true_labels >= 0
        same = objects.labels[:, None] == objects.true_labels
        overlap = np.where(same | ~known, overlap, 0)
    overlap = np.where(overlap >= threshold, overlap, 0)
    found = np.full(len(objects.boxes), INVENTED)
    free = ~objects.crowd
    for number, values in enumerate(overlap):
        usable = np.flatnonzero(free & (values > 0))
        if len(usable):
            found[number] = max(usable, key=values.__getitem__)
            free[found[number]] = False
        elif values[objects.crowd].any():
            found[number] = IGNORED
    return found
