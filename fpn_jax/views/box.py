"""The view of localized objects: at most one box for each image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fpn_jax.report import distributions, plots
from fpn_jax.report.html import SPLIT_NAMES, Headline, Number, Section
from fpn_jax.report.templates import load, percent
from fpn_jax.views import marks
from fpn_jax.views.base import Answer, Evaluated, Info
from fpn_jax.views.ranked import ranked
from fpn_jax.views.results import coco_result

FOUND = 0.5
"""IoU from which a box counts as found."""
CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class BoxView:
    """Shows the box of the object, its class and its probability.

    An answer has `boxes` float `[1, 4]`, `box_scores` `[1]` and `box_labels` int `[1]`,
    −1 where no object is reported. The rows of an evaluation have `iou`, `there`,
    `box`, `true_box`, `label`, `predicted` and `score`, one for each image.
    """

    answers: ClassVar[frozenset[str]] = frozenset({"boxes", "box_scores", "box_labels"})
    keeps: ClassVar[frozenset[str]] = frozenset(
        {"iou", "there", "box", "true_box", "label", "predicted", "score"}
    )

    def columns(self, info: Info) -> tuple[str, ...]:
        """Returns `class`, `probability`, and the corners of the box in pixels."""
        return ("class", "probability", *CORNERS)

    def rows(self, answer: Answer, info: Info) -> list[dict[str, Any]]:
        """Returns one line; class and corners are empty where no object is reported."""
        label = int(answer["box_labels"][0])
        line = {"class": "", "probability": round(float(answer["box_scores"][0]), 6)}
        corners = dict.fromkeys(CORNERS, "")
        if label >= 0:
            line["class"] = info.classes[label]
            values = (round(float(value), 2) for value in answer["boxes"][0])
            corners = dict(zip(CORNERS, values, strict=True))
        return [line | corners]

    def draw(self, image: np.ndarray, answer: Answer, info: Info) -> np.ndarray:
        """Returns the picture, enlarged if it is small, with the box and its class."""
        picture, factor = marks.enlarged(image)
        label, score = int(answer["box_labels"][0]), float(answer["box_scores"][0])
        if label < 0:
            marks.label(picture, (0, 0), f"nothing ({percent(score)})", (90, 90, 90))
            return picture
        text = f"{info.classes[label]} {percent(score)}"
        corners = factor * answer["boxes"][0]
        marks.box(picture, corners, marks.colour_of(label), text)
        return picture

    def files(self, answer: Answer, info: Info) -> dict[str, np.ndarray]:
        """Returns `{}`."""
        return {}

    def results(self, answer: Answer, info: Info) -> list[dict[str, Any]] | None:
        """Returns the entry of the box; `[]` where no object is reported."""
        label = int(answer["box_labels"][0])
        if label < 0:
            return []
        score = float(answer["box_scores"][0])
        return [coco_result(answer["boxes"][0], label, score, info)]

    def headline(self, evaluated: Evaluated, info: Info) -> Headline:
        """Returns the mean IoU, the share of found objects, and what was decided."""
        metrics, there = evaluated.metrics, evaluated.rows["there"].astype(bool)
        split = SPLIT_NAMES.get(evaluated.split, evaluated.split)
        return Headline(
            lead=f"{int(there.sum()):,} of {len(there):,} {split} images show an "
            "object; of several the largest counts.",
            numbers=(
                Number(
                    "Mean IoU of the boxes",
                    percent(metrics["box_iou"], 2),
                    "over the images with an object",
                ),
                Number("Found", percent(metrics["found"]), "IoU of 0.5 or more"),
                Number(
                    "Right class",
                    percent(metrics["class_accuracy"]),
                    "of the images with an object",
                ),
                Number(
                    "Object or none",
                    percent(metrics["object_accuracy"]),
                    "decided rightly",
                ),
            ),
        )

    def sections(self, evaluated: Evaluated, info: Info) -> list[Section]:
        """Returns the IoUs, the IoU by the size of the object, and pictures."""
        rows = evaluated.rows
        there = rows["there"].astype(bool)
        if not there.any():
            return [
                Section("boxes", "Boxes", _macros().empty("No image shows an object."))
            ]
        iou, boxes = rows["iou"][there], rows["true_box"][there]
        sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        distribution = _macros().plot(
            plot=distributions.histogram("iou", iou, "IoU with the true box"),
            alt="Histogram of the IoU with the true box",
            note=f"The line is the median, {np.median(iou):.3f}; "
            f"{percent(float((iou >= 0.75).mean()))} are 0.75 or more.",
        )
        by_size = _macros().plot(
            plot=distributions.scatter(
                "size", sides, iou, ("√area of the true box in pixels", "IoU"), 1.0
            ),
            alt="IoU by the size of the true box",
            note="A point for each image with an object, in pixels of the evaluated "
            "crop.",
        )
        return [
            Section("iou", "IoU of the boxes", distribution, paired=True),
            Section("size", "IoU by size", by_size, paired=True),
            Section(
                "pictures",
                "Worst, median and best boxes",
                _pictures(evaluated, info),
                label="Pictures",
            ),
        ]

    def mistakes(self, evaluated: Evaluated, info: Info) -> list[dict[str, Any]]:
        """Returns images with a wrong decision, a wrong class, or an IoU below 0.5.

        The worst IoU comes first; images without an object come last.
        """
        rows = evaluated.rows
        there = rows["there"].astype(bool)
        said = rows["predicted"] >= 0
        wrong = (said != there) | (there & (rows["iou"] < FOUND))
        wrong |= there & said & (rows["predicted"] != rows["label"])
        order = np.argsort(np.where(there, rows["iou"], np.inf), kind="stable")
        return [
            {
                "id": evaluated.ids[row],
                "label": _name(rows["label"][row], info),
                "predicted": _name(rows["predicted"][row], info),
                "probability": round(float(rows["score"][row]), 6),
                "iou": round(float(rows["iou"][row]), 4) if there[row] else "",
            }
            for row in order
            if wrong[row]
        ]


def _macros() -> Any:
    return load(Path(__file__).with_name("dense.html")).module


def _name(label: int, info: Info) -> str:
    return info.classes[int(label)] if label >= 0 else ""


def _pictures(evaluated: Evaluated, info: Info):
    rows = evaluated.rows
    items = []
    for rank, row in ranked(np.where(rows["there"], rows["iou"], np.nan)):
        picture, factor = marks.enlarged(evaluated.load_image(row))
        marks.box(picture, factor * rows["true_box"][row], marks.TRUTH)
        label = int(rows["predicted"][row])
        text = f"{_name(label, info) or 'nothing'} {percent(float(rows['score'][row]))}"
        marks.box(picture, factor * rows["box"][row], marks.colour_of(label), text)
        items.append(
            {
                "rank": rank,
                "id": evaluated.ids[row],
                "value": f"IoU {rows['iou'][row]:.3f}",
                "pictures": [{"name": "white: truth", "uri": plots.data_uri(picture)}],
            }
        )
    return _macros().sheet(items=items)
