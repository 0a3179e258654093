"""Anchors that suit the boxes of a data set: k-means on 1 − IoU."""

from typing import NamedTuple

import numpy as np

from fpn_jax.errors import InputError, at_least

_ROUNDS = 300
"""Rounds after which k-means ends, though assignments still change."""


class Proposal(NamedTuple):
    """What `propose` returns.

    Attributes:
      anchors: float `[k, 2]`, width and height, in increasing order of the area.
      average_iou: Mean over the boxes of the IoU with their best anchor.
    """

    anchors: np.ndarray
    average_iou: float


def shape_iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes and anchors that have one centre, float `[N, A]`.

    Args:
      sizes: Width and height, above 0, `[N, 2]`.
      anchors: Width and height, above 0, `[A, 2]`.
    """
    both = np.minimum(sizes[:, None], anchors).prod(-1)
    return both / (sizes.prod(-1)[:, None] + anchors.prod(-1) - both)


def propose(sizes: np.ndarray, count: int) -> Proposal:
    """Returns anchors by k-means with the distance `1 − IoU` of shapes.

    "YOLO9000" (arXiv 1612.08242, section 2): the mean of the boxes of a cluster is its
    new anchor. The first anchors are boxes at equal distances in the order of their
    areas, of their widths, or of their heights, or boxes that are far from each other;
    the best anchors of all rounds are returned, which depend on the boxes alone.

    Args:
      sizes: Width and height of the boxes, above 0, `[N, 2]`.
      count: Number of anchors `k`, 1 to the number of different boxes.

    Raises:
      InputError: There are fewer different boxes than anchors.
    """
    at_least("count", count, 1, whole=True)
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    different = np.unique(sizes, axis=0)
    if len(different) < count:
        raise InputError(
            f"{count} anchors need as many boxes of different shapes; there are "
            f"{len(different)}"
        )
    places = ((np.arange(count) + 0.5) / count * len(different)).astype(int)
    starts = []
    for key in (different.prod(-1), different[:, 0], different[:, 1]):
        order = np.argsort(key, kind="stable")
        starts.append(different[order[places]])
    starts.append(_far_apart(different, count))
    found = [_clustered(sizes, anchors) for anchors in starts]
    best = max(found, key=lambda proposal: proposal.average_iou)
    order = np.argsort(best.anchors.prod(-1), kind="stable")
    return best._replace(anchors=best.anchors[order])


def _far_apart(sizes: np.ndarray, count: int) -> np.ndarray:
    """Returns the box that is nearest to the median, then each time the farthest."""
    middle = np.median(sizes, axis=0)[None]
    chosen = [int(shape_iou(sizes, middle).argmax())]
    nearest = shape_iou(sizes, sizes[chosen])[:, 0]
    while len(chosen) < count:
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, shape_iou(sizes, sizes[chosen[-1:]])[:, 0])
    return sizes[chosen]


def _clustered(sizes: np.ndarray, anchors: np.ndarray) -> Proposal:
    """Returns the best anchors of all rounds; a mean may fit worse than before."""
    before, best = None, Proposal(anchors, 0.0)
    for _ in range(_ROUNDS):
        iou = shape_iou(sizes, anchors)
        average = float(iou.max(-1).mean())
        if average > best.average_iou:
            best = Proposal(anchors, average)
        nearest = iou.argmax(-1)
        if before is not None and (nearest == before).all():
            break
        before = nearest
        clusters = [sizes[nearest == number] for number in range(len(anchors))]
        # An anchor that no box is nearest to stays where it is.
        anchors = np.array(
            [
                mine.mean(axis=0) if len(mine) else anchor
                for mine, anchor in zip(clusters, anchors, strict=True)
            ]
        )
    return best
