"""The view of segmented images: the class of every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fpn_jax.report import distributions, plots
from fpn_jax.report.html import SPLIT_NAMES, Headline, Number, Section
from fpn_jax.report.statistics import ratio
from fpn_jax.report.templates import load, percent
from fpn_jax.views import marks
from fpn_jax.views.base import Answer, Evaluated, Info
from fpn_jax.views.ranked import ranked

POOR = 0.5
"""An image whose IoU of the foreground is below this counts as a mistake."""


@dataclass(frozen=True)
class ClassMapView:
    """Shows the class of every pixel in colour, and writes it as a class map.

    An answer has `mask`, uint8 `[H, W]`. The rows of an evaluation have
    `foreground_iou`, float `[N]`, and `intersection`, `predicted` and `truth`, int
    `[N, C]`: pixels of each class in each image.
    """

    answers: ClassVar[frozenset[str]] = frozenset({"mask"})
    keeps: ClassVar[frozenset[str]] = frozenset(
        {"foreground_iou", "intersection", "predicted", "truth"}
    )

    def columns(self, info: Info) -> tuple[str, ...]:
        """Returns `share_CLASS` for every class of the mask."""
        return tuple(f"share_{name}" for name in info.mask_classes)

    def rows(self, answer: Answer, info: Info) -> list[dict[str, Any]]:
        """Returns one line: the share of the pixels of each class, to 6 decimals."""
        count = np.bincount(answer["mask"].ravel(), minlength=len(info.mask_classes))
        shares = count / answer["mask"].size
        columns = self.columns(info)
        return [{c: round(float(s), 6) for c, s in zip(columns, shares, strict=False)}]

    def draw(self, image: np.ndarray, answer: Answer, info: Info) -> np.ndarray:
        """Returns the picture with the classes in colour."""
        return marks.over_mask(image, answer["mask"])

    def files(self, answer: Answer, info: Info) -> dict[str, np.ndarray]:
        """Returns `_mask`, the number of the class of every pixel, and `_colours`."""
        mask = answer["mask"]
        return {"_mask": mask, "_colours": marks.mask_colours(mask)}

    def results(self, answer: Answer, info: Info) -> list[dict[str, Any]] | None:
        """Returns None: the answers are no boxes."""
        return None

    def headline(self, evaluated: Evaluated, info: Info) -> Headline:
        """Returns the mean IoU, and the IoUs of the foreground and of its boundary."""
        metrics, count = evaluated.metrics, len(evaluated.ids)
        split = SPLIT_NAMES.get(evaluated.split, evaluated.split)
        worst = float(np.min(evaluated.rows["foreground_iou"]))
        return Headline(
            lead=f"Every pixel of {count:,} {split} images, in "
            f"{len(info.mask_classes)} classes: {', '.join(info.mask_classes)}.",
            numbers=(
                Number(
                    "Mean IoU",
                    percent(metrics["mean_iou"], 2),
                    "classes in truth or prediction, all pixels",
                ),
                Number(
                    "Foreground IoU",
                    percent(metrics["foreground_iou"]),
                    f"all pixels; {percent(metrics['foreground_iou_per_image'])} as a "
                    f"mean over images, worst {percent(worst)}",
                ),
                Number(
                    "Boundary IoU",
                    percent(metrics["boundary_iou"]),
                    "within 2 % of the diagonal",
                ),
                Number("Pixel accuracy", percent(metrics["pixel_accuracy"])),
            ),
        )

    def sections(self, evaluated: Evaluated, info: Info) -> list[Section]:
        """Returns the scores per class, the IoUs of the images, and pictures."""
        return [
            Section("classes", "Scores per class", _scores(evaluated, info)),
            Section("images", "IoU of the images", _distribution(evaluated)),
            Section(
                "pictures",
                "Worst, median and best images",
                _pictures(evaluated, info),
                label="Pictures",
            ),
        ]

    def mistakes(self, evaluated: Evaluated, info: Info) -> list[dict[str, Any]]:
        """Returns `id` and `foreground_iou` of images below 0.5, the worst first."""
        iou = evaluated.rows["foreground_iou"]
        return [
            {"id": evaluated.ids[row], "foreground_iou": round(float(iou[row]), 4)}
            for row in np.argsort(iou, kind="stable")
            if iou[row] < POOR
        ]


def _macros() -> Any:
    return load(Path(__file__).with_name("dense.html")).module


def _scores(evaluated: Evaluated, info: Info):
    hits, predicted, truth = (
        evaluated.rows[key].astype(np.float64).sum(axis=0)
        for key in ("intersection", "predicted", "truth")
    )
    return _macros().scores(
        head=("Class", "IoU", "Precision", "Recall", "Share of pixels"),
        rows=[
            (name, shares)
            for name, *shares in zip(
                info.mask_classes,
                ratio(hits, predicted + truth - hits).tolist(),
                ratio(hits, predicted).tolist(),
                ratio(hits, truth).tolist(),
                (truth / max(truth.sum(), 1)).tolist(),
                strict=True,
            )
        ],
        note="IoU = intersection / union, precision = share of the pixels predicted as "
        "the class that belong to it, recall = share of the pixels of the class that "
        "are predicted as it; all over all pixels of the split that are not ignored.",
    )


def _distribution(evaluated: Evaluated):
    iou = evaluated.rows["foreground_iou"]
    return _macros().plot(
        plot=distributions.histogram("iou", iou, "IoU of the foreground"),
        alt="Histogram of the IoU of the foreground in each image",
        note=f"The line is the median, {np.median(iou):.3f}. An image without "
        "foreground in which none is found has the IoU 1.",
    )


def _pictures(evaluated: Evaluated, info: Info):
    iou = evaluated.rows["foreground_iou"]
    chosen = ranked(iou)
    rows = [row for _, row in chosen]
    answers = evaluated.answers(rows)
    items = [
        {
            "rank": rank,
            "id": evaluated.ids[row],
            "value": f"IoU {iou[row]:.3f}",
            "pictures": _side_by_side(evaluated, row, answer),
        }
        for (rank, row), answer in zip(chosen, answers, strict=True)
    ]
    return _macros().gallery(items=items, legend=_legend(info.mask_classes))


def _side_by_side(evaluated: Evaluated, row: int, answer: Answer) -> list[dict]:
    image, truth = evaluated.load_image(row), evaluated.load_truth(row)["mask"]
    return [
        {"name": name, "uri": plots.data_uri(picture)}
        for name, picture in (
            ("image", image),
            ("truth", marks.over_mask(image, truth)),
            ("prediction", marks.over_mask(image, answer["mask"])),
        )
    ]


def _legend(names: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*marks.colour_of(i))}
        for i, name in enumerate(names[1:])
    ]
