"""The view of landmarks: named points on each image."""

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

FAILED = 0.1
"""Mean error of an image, in distances of the eyes, above which it has failed."""
FAR = 0.2
"""Upper end of the curve of the errors."""


@dataclass(frozen=True)
class PointsView:
    """Shows the landmarks of each image.

    An answer has `landmarks` float `[K, 3]`, x, y and visibility, and
    `landmark_scores` `[K]`. The rows of an evaluation have `landmarks` and
    `true_landmarks`, float `[N, K, 3]`, and `error` `[N, K]` in distances of the eyes,
    NaN where a point does not count.
    """

    answers: ClassVar[frozenset[str]] = frozenset({"landmarks", "landmark_scores"})
    keeps: ClassVar[frozenset[str]] = frozenset(
        {"landmarks", "true_landmarks", "error"}
    )

    def columns(self, info: Info) -> tuple[str, ...]:
        """Returns `landmark`, `x` and `y` in pixels, `visible` and `probability`."""
        return ("landmark", "x", "y", "visible", "probability")

    def rows(self, answer: Answer, info: Info) -> list[dict[str, Any]]:
        """Returns one line for each landmark."""
        points = zip(
            info.landmark_names,
            answer["landmarks"].tolist(),
            answer["landmark_scores"].tolist(),
            strict=True,
        )
        return [
            {
                "landmark": name,
                "x": round(x, 2),
                "y": round(y, 2),
                "visible": int(visible),
                "probability": round(score, 6),
            }
            for name, (x, y, visible), score in points
        ]

    def draw(self, image: np.ndarray, answer: Answer, info: Info) -> np.ndarray:
        """Returns the picture, enlarged if it is small; hidden points are rings."""
        picture, factor = marks.enlarged(image)
        for index, (x, y, visible) in enumerate(answer["landmarks"]):
            place, colour = factor * np.array([x, y]), marks.colour_of(index)
            marks.point(picture, place, colour, hollow=not visible)
        return picture

    def files(self, answer: Answer, info: Info) -> dict[str, np.ndarray]:
        """Returns `{}`."""
        return {}

    def results(self, answer: Answer, info: Info) -> list[dict[str, Any]] | None:
        """Returns None: the answers are no boxes."""
        return None

    def headline(self, evaluated: Evaluated, info: Info) -> Headline:
        """Returns the normalized mean error, and how many images and points failed."""
        metrics, count = evaluated.metrics, len(evaluated.ids)
        split = SPLIT_NAMES.get(evaluated.split, evaluated.split)
        mean = _mean_errors(evaluated)
        area = _area_under_curve(mean[~np.isnan(mean)])
        return Headline(
            lead=f"{len(info.landmark_names)} landmarks in each of {count:,} {split} "
            "images. Errors are divided by the distance of the eyes.",
            numbers=(
                Number(
                    "Normalized mean error",
                    f"{metrics['nme']:.4f}",
                    "mean over visible points, then over images; the median image "
                    f"has {metrics['median_error']:.4f}",
                ),
                Number(
                    "Failed images",
                    percent(metrics["failure_rate"]),
                    f"mean error above {FAILED}",
                ),
                Number(
                    "Points found", percent(metrics["points_found"]), f"within {FAILED}"
                ),
                Number(
                    "Area under the curve", percent(area), f"of errors up to {FAILED}"
                ),
            ),
        )

    def sections(self, evaluated: Evaluated, info: Info) -> list[Section]:
        """Returns the curve of the errors, the error of each landmark, and pictures."""
        mean = _mean_errors(evaluated)
        mean = mean[~np.isnan(mean)]
        if not len(mean):
            nothing = _macros().empty("No image has a visible landmark.")
            return [Section("errors", "Errors", nothing)]
        curve = _macros().plot(
            plot=distributions.cumulative(
                "errors", mean, "mean error in distances of the eyes", FAR, FAILED
            ),
            alt="Share of the images by their mean error",
            note=f"Share of the images whose mean error is at most x. The dashed line, "
            f"{FAILED}, is where an image counts as failed.",
        )
        return [
            Section("errors", "Errors of the images", curve),
            Section("landmarks", "Error of each landmark", _table(evaluated, info)),
            Section(
                "pictures",
                "Worst, median and best images",
                _pictures(evaluated, info),
                label="Pictures",
            ),
        ]

    def mistakes(self, evaluated: Evaluated, info: Info) -> list[dict[str, Any]]:
        """Returns `id` and `error` of the images that have failed, the worst first."""
        mean = _mean_errors(evaluated)
        return [
            {"id": evaluated.ids[row], "error": round(float(mean[row]), 4)}
            for row in np.argsort(-np.nan_to_num(mean), kind="stable")
            if mean[row] > FAILED
        ]


def _macros() -> Any:
    return load(Path(__file__).with_name("dense.html")).module


def _mean_errors(evaluated: Evaluated) -> np.ndarray:
    """Returns the mean error of every image; NaN where no point counts."""
    error = evaluated.rows["error"]
    counted = ~np.isnan(error)
    total = np.where(counted, error, 0).sum(axis=1)
    count = counted.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _area_under_curve(errors: np.ndarray) -> float:
    """Returns the area under the curve of the errors up to `FAILED`, 0 to 1."""
    if not len(errors):
        return float("nan")
    return float(np.clip(1 - errors / FAILED, 0, 1).mean())


def _table(evaluated: Evaluated, info: Info):
    error = evaluated.rows["error"]
    rows = []
    for name, column in zip(info.landmark_names, error.T, strict=True):
        counted = column[~np.isnan(column)]
        known = len(counted) > 0
        rows.append(
            (
                name,
                f"{counted.mean():.4f}" if known else "–",
                f"{np.median(counted):.4f}" if known else "–",
                percent(float((counted <= FAILED).mean())) if known else "–",
                f"{len(counted):,}",
            )
        )
    return _macros().table(
        head=("Landmark", "Mean error", "Median error", f"Within {FAILED}", "Visible"),
        rows=rows,
    )


def _pictures(evaluated: Evaluated, info: Info):
    rows = evaluated.rows
    mean = _mean_errors(evaluated)
    items = []
    for rank, row in ranked(-mean):
        picture, factor = marks.enlarged(evaluated.load_image(row))
        places = zip(rows["landmarks"][row], rows["true_landmarks"][row], strict=True)
        for index, (found, true) in enumerate(places):
            if true[2]:
                marks.point(picture, factor * true, marks.TRUTH, hollow=True)
            colour = marks.colour_of(index)
            marks.point(picture, factor * found, colour, hollow=not found[2])
        items.append(
            {
                "rank": rank,
                "id": evaluated.ids[row],
                "value": f"error {mean[row]:.3f}",
                "pictures": [
                    {"name": "white rings: truth", "uri": plots.data_uri(picture)}
                ],
            }
        )
    legend = [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*marks.colour_of(i))}
        for i, name in enumerate(info.landmark_names)
    ]
    return _macros().sheet(items=items, legend=legend)
