"""What a check says about boxes: average precision of the truth, fit of the anchors."""

import numpy as np

from fpn_jax.errors import InputError
from fpn_jax.metrics import average_precision
from fpn_jax.ops import kmeans

SIZES = (("small", 0, 32**2), ("medium", 32**2, 96**2), ("large", 96**2, np.inf))
"""Names of COCO's areas, and their least and greatest number of pixels."""
ENOUGH = 20_000
"""Boxes that k-means reads at most; of more boxes it reads every second, third …"""
POOR, MANY = 0.5, 0.05
"""IoU below which no anchor fits, and share of such boxes that calls for others."""


def truth_as_prediction(
    boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, num_classes: int
) -> tuple[tuple[str, ...], bool]:
    """Returns lines about the AP of the true boxes as detections, and whether it is 1.

    Anything else says that a box cannot be found, such as one that is there twice.

    Args:
      boxes: float `[R, N, 4]`; padding has no area.
      labels: int `[R, N]`.
      crowd: int `[R, N]`, 1 for a box that counts neither as found nor as missed.
      num_classes: Number of classes.
    """
    there = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    counted = there & (labels >= 0) & (crowd == 0)
    if not counted.any():
        return ("no box is to be found",), False
    truth = average_precision.Boxes(boxes, labels)
    found = average_precision.Boxes(boxes, np.where(counted, labels, -1))
    scores = np.ones(labels.shape, np.float32)
    try:
        result = average_precision.average_precision(
            found, scores, truth, crowd, num_classes
        )
    except InputError as error:
        return (f"not checked: {error}",), True
    value = result.summary["ap"]
    passed = value > 1 - 1e-6
    line = f"{int(counted.sum())} boxes; the truth as prediction has AP {value:.3f}"
    return (line if passed else f"{line} instead of 1",), passed


def fit_of_anchors(boxes: np.ndarray, anchors: np.ndarray) -> tuple[str, ...]:
    """Returns lines about the IoU of the boxes and their best anchors, by shape.

    Args:
      boxes: float `[N, 4]`, with an area; without a box there is no line.
      anchors: Width and height, `[A, 2]`.
    """
    if not len(boxes):
        return ()
    sizes = boxes[:, 2:] - boxes[:, :2]
    best = kmeans.shape_iou(sizes, anchors).max(axis=1)
    area = sizes.prod(axis=1)
    parts = [
        f"{name} {best[chosen].mean():.2f} ({int(chosen.sum())})"
        for name, low, high in SIZES
        if (chosen := (area >= low) & (area < high)).any()
    ]
    poor = float((best < POOR).mean())
    lines = [
        f"IoU with the best anchor, by shape: {', '.join(parts)}; {poor:.1%} of the "
        f"boxes are below {POOR}"
    ]
    if poor > MANY:
        some = sizes[:: -(-len(sizes) // ENOUGH)]
        count = min(len(anchors), 9, len(np.unique(some, axis=0)))
        proposal = kmeans.propose(some, count)
        shown = ", ".join(f"({w:.0f}, {h:.0f})" for w, h in proposal.anchors)
        lines.append(
            f"k-means proposes the widths and heights {shown}: average IoU "
            f"{proposal.average_iou:.2f} instead of {best.mean():.2f}"
        )
    return tuple(lines)
