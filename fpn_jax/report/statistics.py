"""Statistics of a report: scores per class, calibration, intervals, smoothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Entries = Sequence[Mapping[str, Any]]
"""The lines of `metrics.jsonl`, such as `{"step": 100, "train/loss": 0.6}`."""


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: int
) -> np.ndarray:
    """Returns how many images of each class were predicted as each class.

    Args:
      labels: int `[N]`, 0 to `classes - 1`.
      predicted: int `[N]`, 0 to `classes - 1`.
      classes: Number of classes.

    Returns:
      int `[classes, classes]`; rows are labels, columns are predictions.

    Example:
      >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
      [[1, 1], [0, 1]]
    """
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


class ClassScores(NamedTuple):
    """Scores of each class, `[classes]`; NaN where the denominator is 0.

    Attributes:
      precision: Share of the images predicted as the class that belong to it.
      recall: Share of the images of the class that are predicted as it.
      f1: Harmonic mean of both, `2 TP / (2 TP + FP + FN)`.
      support: Number of images of the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def class_scores(matrix: np.ndarray) -> ClassScores:
    """Returns precision, recall, F1 and support of each class.

    Args:
      matrix: int `[classes, classes]`, as returned by `confusion_matrix`.
    """
    hits, support, chosen = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return ClassScores(
        precision=ratio(hits, chosen),
        recall=ratio(hits, support),
        f1=ratio(2 * hits, support + chosen),
        support=support,
    )


class Calibration(NamedTuple):
    """Confidence and accuracy in equal bins of confidence.

    Attributes:
      edges: float `[bins + 1]`, 0 to 1; a bin includes its upper edge.
      count: int `[bins]`, number of images.
      confidence: float `[bins]`, mean; NaN where the bin is empty.
      accuracy: float `[bins]`; NaN where the bin is empty.
      error: Expected calibration error, 0 to 1; NaN if there is no image.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15
) -> Calibration:
    """Returns the reliability of the confidence in the predicted class.

    `ECE = Σ_b n_b / N · |accuracy_b − confidence_b|`: "On Calibration of Modern Neural
    Networks" (arXiv 1706.04599), equation 3.

    Args:
      confidence: float `[N]`, probability of the predicted class, 0 to 1.
      correct: bool `[N]`, whether the predicted class is the true one.
      bins: Number of bins of equal width.
    """
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    accuracy = ratio(np.bincount(where, correct, bins), count)
    mean = ratio(np.bincount(where, confidence, bins), count)
    gap = np.nansum(count * np.abs(accuracy - mean))
    error = float(gap / count.sum()) if count.sum() else math.nan
    return Calibration(edges, count, mean, accuracy, error)


def wilson_interval(
    correct: int, total: int, deviations: float = 1.959964
) -> tuple[float, float]:
    """Returns the Wilson score interval of a share.

    Unlike `p ± z √(p (1 − p) / n)` it stays in 0 to 1 and has a width at 0 and at 1.

    Args:
      correct: Number of successes.
      total: Number of trials, 1 or more.
      deviations: Quantile of the normal distribution; the default is that of 95 %.

    Example:
      >>> low, high = wilson_interval(95, 100)
      >>> print(f"{low:.4f} {high:.4f}")
      0.8882 0.9785
    """
    share, square = correct / total, deviations**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    half = deviations / (1 + square / total) * spread
    return max(middle - half, 0.0), min(middle + half, 1.0)


def series(entries: Entries, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps `[N]` and the values `[N]` of one key of the metrics.

    Args:
      entries: The lines of `metrics.jsonl`.
      key: Such as `"train/loss"`; entries without it are skipped. A value that is not
        a finite number, be it a number or text (`"NaN"`), becomes NaN.
    """
    found = [(entry["step"], entry[key]) for entry in entries if key in entry]
    steps = np.array([step for step, _ in found], np.int64)
    # NumPy converts None and the text "NaN" to float in the same way.
    values = np.array([value for _, value in found], object).astype(float)
    return steps, np.where(np.isfinite(values), values, math.nan)


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns the running mean over about a thirtieth of the values.

    The window is centred, is shorter at both ends, and ignores NaN.

    Args:
      values: float `[N]`, `N` 1 or more.

    Returns:
      float `[N]`; NaN where a window has no number.
    """
    window = np.ones(2 * (len(values) // 60) + 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0), window, mode="same")
    return ratio(total, np.round(np.convolve(finite, window, mode="same")))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns `numerator / denominator`; NaN where the denominator is 0.

    Example:
      >>> ratio(np.array([1, 1]), np.array([2, 0])).tolist()
      [0.5, nan]
    """
    nothing = np.full(np.shape(denominator), math.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator != 0)
