"""The view of classified images: one class and its probability for each image."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fpn_jax.report import plots, statistics
from fpn_jax.report.html import SPLIT_NAMES, Headline, Number, Section
from fpn_jax.report.templates import counted, load, percent
from fpn_jax.views.base import Answer, Evaluated, Info
from fpn_jax.views.caption import caption

GALLERY_SIZE = 12
CONFUSED_PAIRS = 5
PAIRED_CLASSES = 12
NOT_FINITE = "the probabilities are not finite"
EXPLAINED_MISTAKES, EXPLAINED_CORRECT = 2, 4


@dataclass(frozen=True)
class _Predictions:
    """What the rows say, `[N]` each.

    Attributes:
      label: int, the true class.
      predicted: int, the class that the task decided on.
      confidence: float, the probability of that class; 0 where it is not finite.
      finite: bool, whether all probabilities are finite. No class is predicted where
        they are not, so such a row is wrong.
      correct: bool.
    """

    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    finite: np.ndarray
    correct: np.ndarray

    def mistakes(self) -> np.ndarray:
        """Returns the rows with a wrong class, the most confident first."""
        wrong = np.flatnonzero(self.finite & ~self.correct)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]


@dataclass(frozen=True)
class ClassesView:
    """Shows one class an image, with its probability.

    An answer has `label`, int, and `probabilities`, float `[classes]`. The rows of an
    evaluation have `label`, int `[N]`, the true class; `predicted`, int `[N]`, the
    class that the task decided on; and `probabilities`, float `[N, classes]`.
    """

    answers: ClassVar[frozenset[str]] = frozenset({"label", "probabilities"})
    keeps: ClassVar[frozenset[str]] = frozenset({"label", "predicted", "probabilities"})

    def columns(self, info: Info) -> tuple[str, ...]:
        """Returns `class`, and `probability_CLASS` for every class."""
        return ("class", *(f"probability_{name}" for name in info.classes))

    def rows(self, answer: Answer, info: Info) -> list[dict[str, Any]]:
        """Returns one line: the class, and all probabilities to 6 decimals.

        If the probabilities are not finite, the class is empty and `error` says so.
        """
        finite = np.isfinite(answer["probabilities"]).all()
        name = info.classes[int(answer["label"])] if finite else ""
        values = (round(float(p), 6) for p in answer["probabilities"])
        line = dict(zip(self.columns(info), (name, *values), strict=True))
        return [line if finite else line | {"error": NOT_FINITE}]

    def draw(self, image: np.ndarray, answer: Answer, info: Info) -> np.ndarray:
        """Returns the picture with its class and probability in a bar below it."""
        label = int(answer["label"])
        if not np.isfinite(answer["probabilities"]).all():
            return caption(image, NOT_FINITE, float("nan"))
        return caption(
            image, info.classes[label], float(answer["probabilities"][label])
        )

    def files(self, answer: Answer, info: Info) -> dict[str, np.ndarray]:
        """Returns `{}`."""
        return {}

    def results(self, answer: Answer, info: Info) -> list[dict[str, Any]] | None:
        """Returns None: the answers are no boxes."""
        return None

    def headline(self, evaluated: Evaluated, info: Info) -> Headline:
        """Returns accuracy, calibration error, and the numbers of images and classes.

        Raises:
          ValueError: The rows do not fit the classes.
        """
        found = _read(evaluated, info)
        total, right = len(found.label), int(found.correct.sum())
        interval = statistics.wilson_interval(right, total)
        not_finite = total - int(found.finite.sum())
        calibration = _calibration(found)
        split = SPLIT_NAMES.get(evaluated.split, evaluated.split)
        noun = "image" if total == 1 else "images"
        names = ", ".join(info.classes[:4])
        return Headline(
            lead=f"{right:,} of {total:,} {split} {noun} correct. Majority-class "
            f"baseline: {percent(np.bincount(found.label).max() / total)}.",
            numbers=(
                Number(
                    "Accuracy",
                    percent(right / total, 2),
                    f"95 % interval {percent(interval[0])} to {percent(interval[1])}",
                    interval,
                ),
                Number(
                    "Calibration error",
                    percent(calibration.error),
                    f"expected, in {len(calibration.count)} bins",
                ),
                Number("Images", f"{total:,}", f"{total - right:,} wrong"),
                Number(
                    "Classes",
                    f"{len(info.classes):,}",
                    f"{names} …" if len(info.classes) > 4 else names,
                ),
            ),
            warnings=(_not_finite(not_finite, total),) if not_finite else (),
        )

    def sections(self, evaluated: Evaluated, info: Info) -> list[Section]:
        """Returns confusion, calibration, scores, mistakes and activation maps.

        Raises:
          ValueError: The rows do not fit the classes.
        """
        found = _read(evaluated, info)
        matrix = statistics.confusion_matrix(
            found.label[found.finite], found.predicted[found.finite], len(info.classes)
        )
        sections = [
            _confusion_section(matrix, info.classes),
            _calibration_section(found, info.classes),
            _scores_section(matrix, info.classes),
            _mistakes_section(found, evaluated, info),
        ]
        if evaluated.explain is not None:
            sections.append(_activation_section(found, evaluated, info))
        return sections

    def mistakes(self, evaluated: Evaluated, info: Info) -> list[dict[str, Any]]:
        """Returns `id`, `label`, `predicted` and `probability` of each wrong image.

        The most confident mistakes come first. Images whose probabilities are not
        finite come last: their `predicted` is empty and their `probability` is NaN.

        Raises:
          ValueError: The rows do not fit the classes.
        """
        found = _read(evaluated, info)
        lines = []
        for row in [*found.mistakes(), *np.flatnonzero(~found.finite)]:
            finite = found.finite[row]
            lines.append(
                {
                    "id": evaluated.ids[row],
                    "label": info.classes[found.label[row]],
                    "predicted": info.classes[found.predicted[row]] if finite else "",
                    "probability": (
                        round(float(found.confidence[row]), 6) if finite else np.nan
                    ),
                }
            )
        return lines


def _read(evaluated: Evaluated, info: Info) -> _Predictions:
    """Returns the rows, checked against the classes."""
    rows, count, classes = evaluated.rows, len(evaluated.ids), len(info.classes)
    probabilities = rows["probabilities"]
    if probabilities.shape != (count, classes):
        raise ValueError(
            f"probabilities are {list(probabilities.shape)}, but {count} rows and "
            f"{classes} classes need [{count}, {classes}]"
        )
    for name in ("label", "predicted"):
        low, high = rows[name].min(), rows[name].max()
        if low < 0 or high >= classes:
            raise ValueError(
                f"{name} has values from {low} to {high}, but there are {classes} "
                "classes"
            )
    label, predicted = (rows[name].astype(np.int64) for name in ("label", "predicted"))
    finite = np.isfinite(probabilities).all(axis=1)
    confidence = np.where(finite, probabilities[np.arange(count), predicted], 0)
    return _Predictions(
        label, predicted, confidence, finite, finite & (predicted == label)
    )


def _calibration(found: _Predictions) -> statistics.Calibration:
    finite = found.finite
    return statistics.calibration(found.confidence[finite], found.correct[finite])


def _not_finite(count: int, total: int) -> str:
    subject = f"{count:,} of {counted(total, 'image')}"
    excluded = (
        "excluded from the confusion matrix, the calibration, the scores per class and "
        "the gallery."
    )
    if count == 1:
        return (
            f"{subject} has probabilities that are not finite. It counts as wrong and "
            f"is {excluded}"
        )
    return (
        f"{subject} have probabilities that are not finite. They count as wrong and "
        f"are {excluded}"
    )


@functools.cache
def _macros() -> Any:
    return load(Path(__file__).with_name("classes.html")).module


def _confusion_section(matrix: np.ndarray, classes: Sequence[str]) -> Section:
    large = len(classes) > PAIRED_CLASSES
    html = _macros().confusion(
        plot=plots.confusion(matrix, classes),
        classes=len(classes),
        large=large,
        pairs=_confused(matrix, classes) if len(classes) > 2 else [],
    )
    return Section(
        "confusion", "Confusion matrix", html, label="Confusion", paired=not large
    )


def _calibration_section(found: _Predictions, classes: Sequence[str]) -> Section:
    calibration = _calibration(found)
    html = _macros().calibration(
        plot=plots.reliability(*calibration[:4]), error=calibration.error
    )
    paired = len(classes) <= PAIRED_CLASSES
    return Section("calibration", "Calibration", html, paired=paired)


def _scores_section(matrix: np.ndarray, classes: Sequence[str]) -> Section:
    scores = statistics.class_scores(matrix)
    html = _macros().scores(rows=list(zip(classes, *scores, strict=True)))
    return Section("classes", "Scores per class", html, label="Classes")


def _confused(matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the most frequent mistakes, which are hard to find in a large matrix."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = [divmod(cell, len(classes)) for cell in order.tolist()]
    return [
        {
            "label": classes[row],
            "predicted": classes[column],
            "count": wrong[row, column],
        }
        for row, column in pairs
        if wrong[row, column]
    ]


def _mistakes_section(found: _Predictions, evaluated: Evaluated, info: Info) -> Section:
    mistakes = found.mistakes()
    html = _macros().mistakes(
        gallery=[
            _item(row, found, evaluated, info)
            for row in mistakes[:GALLERY_SIZE].tolist()
        ],
        mistakes=len(mistakes),
        total=len(found.label),
        all_finite=bool(found.finite.all()),
    )
    return Section("mistakes", "Most confident mistakes", html, label="Mistakes")


def _item(
    row: int, found: _Predictions, evaluated: Evaluated, info: Info
) -> dict[str, Any]:
    image = evaluated.load_image(row)
    return {
        "id": evaluated.ids[row],
        "label": info.classes[found.label[row]],
        "predicted": info.classes[found.predicted[row]],
        "confidence": found.confidence[row],
        "correct": bool(found.correct[row]),
        "image": image,
        "input": plots.data_uri(image),
    }


def _activation_section(
    found: _Predictions, evaluated: Evaluated, info: Info
) -> Section:
    rows = _worth_explaining(found, len(info.classes))
    heat_maps = evaluated.explain(rows, found.predicted[rows]) if rows else []
    items = []
    for row, maps in zip(rows, heat_maps, strict=True):
        item = _item(row, found, evaluated, info)
        overlays = [
            {
                "level": level,
                "zero": not np.nan_to_num(heat).any(),
                "picture": plots.data_uri(plots.overlay(item["image"], heat, level)),
            }
            for level, heat in sorted(maps.items())
        ]
        items.append(item | {"overlays": overlays})
    return Section(
        "activation",
        "Class activation maps (HiResCAM)",
        _macros().activation(items=items),
        label="Activation maps",
    )


def _worth_explaining(found: _Predictions, classes: int) -> list[int]:
    """Returns rows: the most confident mistakes, then correct ones of each class."""
    mistakes = found.mistakes()[:EXPLAINED_MISTAKES].tolist()
    of_class = [
        np.flatnonzero(found.correct & (found.label == label))[:EXPLAINED_CORRECT]
        for label in range(classes)
    ]
    correct = [
        int(rows[turn])
        for turn in range(EXPLAINED_CORRECT)
        for rows in of_class
        if turn < len(rows)
    ]
    return mistakes + correct[:EXPLAINED_CORRECT]
