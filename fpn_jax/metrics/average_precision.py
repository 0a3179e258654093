"""Average precision of detections as COCO defines it; pycocotools computes it."""

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np

from fpn_jax.errors import InputError

SUMMARY = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
"""Names of the numbers of `COCOeval.summarize`, in its order."""


class Boxes(NamedTuple):
    """Boxes of `R` images, padded to equal numbers.

    Attributes:
      boxes: `[R, N, 4]` as `(x0, y0, x1, y1)`.
      labels: int `[R, N]`; −1 for padding, and for a true box of an unknown class.
    """

    boxes: np.ndarray
    labels: np.ndarray


class Result(NamedTuple):
    """What `average_precision` returns.

    Attributes:
      summary: A value for each name of `SUMMARY`; −1 where there is no true box.
      class_ap: float `[K]`, AP of each class; −1 where there is no true box.
      class_ap50: float `[K]`, AP of each class at IoU 0.5.
    """

    summary: dict[str, float]
    class_ap: np.ndarray
    class_ap50: np.ndarray


def require() -> Any:
    """Returns the modules of pycocotools.

    Raises:
      InputError: It is not installed.
    """
    try:
        from pycocotools import coco, cocoeval
    except ImportError as error:
        raise InputError(
            "average precision needs pycocotools, which is not installed: "
            'pip install "fpn_jax[detection]"'
        ) from error
    return coco, cocoeval


def average_precision(
    found: Boxes,
    scores: np.ndarray,
    truth: Boxes,
    crowd: np.ndarray,
    num_classes: int,
) -> Result:
    """Returns AP and AR of COCO: IoU 0.50 to 0.95, 101 recalls, 100 boxes an image.

    "Microsoft COCO: Common Objects in Context" (arXiv 1405.0312), computed by
    `pycocotools.cocoeval.COCOeval`. Small boxes have an area below 32² pixels, large
    ones of 96² and more, in the pixels of the coordinates that are given. A true box
    that is a crowd counts neither as found nor as missed; one of an unknown class is a
    crowd of every class.

    Args:
      found: The detections.
      scores: Their scores `[R, N]`.
      truth: The true boxes; a box without an area is padding.
      crowd: Whether each true box is a crowd, `[R, M]`.
      num_classes: `K`.

    Raises:
      InputError: pycocotools is not installed.
    """
    _, cocoeval = require()
    images = range(len(found.boxes))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = cocoeval.COCOeval(
            _data_set(images, num_classes, _truth(truth, crowd, num_classes)),
            _data_set(images, num_classes, _detections(found, scores)),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # [T, R, K, A, M]: IoUs, recalls, classes, areas, numbers of boxes.
    precision = evaluation.eval["precision"][..., 0, -1]
    return Result(
        dict(zip(SUMMARY, map(float, evaluation.stats), strict=True)),
        np.array([_mean(precision[:, :, k]) for k in range(num_classes)]),
        np.array([_mean(precision[0, :, k]) for k in range(num_classes)]),
    )


def _mean(precision: np.ndarray) -> float:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else -1.0


def _data_set(images: range, num_classes: int, annotations: list[dict]) -> Any:
    """Returns boxes as pycocotools reads them; its numbers begin with 1."""
    coco, _ = require()
    data = coco.COCO()
    data.dataset = {
        "images": [{"id": image + 1} for image in images],
        "categories": [{"id": label + 1} for label in range(num_classes)],
        "annotations": [
            {"id": number, **annotation}
            for number, annotation in enumerate(annotations, start=1)
        ],
    }
    data.createIndex()
    return data


def _annotation(row: int, label: int, corners: np.ndarray, **values: Any) -> dict:
    x0, y0, x1, y1 = corners.tolist()
    width, height = x1 - x0, y1 - y0
    return {
        "image_id": row + 1,
        "category_id": int(label) + 1,
        "bbox": [x0, y0, width, height],
        "area": width * height,
        "iscrowd": 0,
        **values,
    }


def _truth(truth: Boxes, crowd: np.ndarray, num_classes: int) -> list[dict]:
    boxes = truth.boxes.astype(np.float64)
    there = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    annotations = []
    for row, number in np.argwhere(there):
        label, corners = truth.labels[row, number], boxes[row, number]
        of_all = range(num_classes) if label < 0 else (label,)
        counted_out = int(label < 0 or crowd[row, number])
        annotations += [
            _annotation(row, one, corners, iscrowd=counted_out) for one in of_all
        ]
    return annotations


def _detections(found: Boxes, scores: np.ndarray) -> list[dict]:
    boxes = found.boxes.astype(np.float64)
    return [
        _annotation(
            row,
            found.labels[row, number],
            boxes[row, number],
            score=float(scores[row, number]),
        )
        for row, number in np.argwhere(found.labels >= 0)
    ]
