"""Writes the report of a run: one HTML file that opens without a network."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from etils import epath
from markupsafe import Markup

from fpn_jax.report import plots

Records = Sequence[Mapping[str, Any]]
MISTAKES_AT_MOST = 12
SMOOTHED_FROM = 60


@dataclass(frozen=True)
class HeatMap:
    """Where the evidence for the predicted class of one image lies.

    Attributes:
      index: Which image, as a position in `Contents.labels`.
      maps: Level → float32 `[ceil(H / 2**level), ceil(W / 2**level)]`, 0 to 1.
    """

    index: int
    maps: dict[int, np.ndarray]


@dataclass(frozen=True)
class Contents:
    """What a report is made of; every summary number is derived from it.

    Attributes:
      title: Heading of the page.
      config: The resolved config, nested.
      environment: What the run ran on: versions, devices, flags.
      records: The lines of `metrics.jsonl`, such as `{"step": 100, "train/loss": 0.6,
        "train/learning_rate": 0.1, "train/images_per_second": 900.0}` or `{"step": 100,
        "validate/accuracy": 0.8, "validate/loss": 0.5}`.
      classes: Name of each class.
      labels: int `[N]`, the true class of each image.
      probabilities: float `[N, classes]`.
      ids: `[N]`, where each image came from.
      load_image: Takes a position in `labels` to the evaluation crop, uint8
        `[H, W, 3]`; called only for pictures that are shown.
      heat_maps: The images to explain.
      skipped: `(id, reason)` of each file that could not be used.
      split: Name of the split that was evaluated.
      step: Step of the checkpoint that was evaluated.
    """

    title: str
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    records: Records
    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    ids: Sequence[str]
    load_image: Callable[[int], np.ndarray]
    heat_maps: Sequence[HeatMap]
    skipped: Sequence[tuple[str, str]]
    split: str
    step: int

    def __post_init__(self):
        count = len(self.labels)
        if count == 0:
            raise ValueError(f"split {self.split!r} has no image to report on")
        if self.probabilities.shape != (count, len(self.classes)):
            raise ValueError(
                f"probabilities are {list(self.probabilities.shape)}, but {count} "
                f"labels and {len(self.classes)} classes make it "
                f"[{count}, {len(self.classes)}]"
            )
        if len(self.ids) != count:
            raise ValueError(f"there are {len(self.ids)} ids for {count} labels")
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise ValueError(
                f"labels go from {self.labels.min()} to {self.labels.max()}, but there "
                f"are {len(self.classes)} classes"
            )


def write(path: str | epath.PathLike, contents: Contents) -> None:
    """Writes the report; the same contents give the same bytes.

    Args:
      path: The `.html` file; its folder is made where it is missing.
      contents: What the report says.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["breakable"] = _breakable
    page = environment.get_template("template.html").render(_page(contents))
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: int
) -> np.ndarray:
    """Returns how often each class was taken for each class.

    Args:
      labels: int `[N]`, 0 to `classes - 1`.
      predicted: int `[N]`, likewise.
      classes: Number of classes.

    Returns:
      int `[classes, classes]`, rows are labels and columns predictions.

    Example:
      >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
      [[1, 1], [0, 1]]
    """
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


class ClassScores(NamedTuple):
    """Scores of each class, `[classes]`; NaN where the denominator is 0.

    Attributes:
      precision: Share of the images predicted as the class that are of it.
      recall: Share of the images of the class that are predicted as it.
      f1: Harmonic mean of both, `2 TP / (2 TP + FP + FN)`.
      support: Images of the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def class_scores(matrix: np.ndarray) -> ClassScores:
    """Returns precision, recall, F1 and support of each class.

    Args:
      matrix: int `[classes, classes]`, as of `confusion_matrix`.
    """
    hits, support, chosen = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return ClassScores(
        precision=_ratio(hits, chosen),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + chosen),
        support=support,
    )


class Calibration(NamedTuple):
    """Confidence and accuracy in equal bins of confidence.

    Attributes:
      edges: float `[bins + 1]`, 0 to 1; a bin holds its upper edge.
      count: int `[bins]`, images.
      confidence: float `[bins]`, mean; NaN where the bin is empty.
      accuracy: float `[bins]`; NaN where the bin is empty.
      error: Expected calibration error, 0 to 1; NaN without an image.
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
      correct: bool `[N]`, whether that class is the true one.
      bins: Number of bins of equal width.
    """
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    accuracy = _ratio(np.bincount(where, correct, bins), count)
    mean = _ratio(np.bincount(where, confidence, bins), count)
    gap = np.nansum(count * np.abs(accuracy - mean))
    error = float(gap / count.sum()) if count.sum() else math.nan
    return Calibration(edges, count, mean, accuracy, error)


def wilson_interval(
    correct: int, total: int, deviations: float = 1.959964
) -> tuple[float, float]:
    """Returns the Wilson score interval of a share.

    Unlike `p ± z √(p (1 − p) / n)` it stays in 0 to 1 and has a width at 0 and at 1.

    Args:
      correct: Successes.
      total: Trials, 1 or more.
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


def series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps `[N]` and the values `[N]` of one key of the metrics.

    Args:
      records: The lines of `metrics.jsonl`.
      key: Such as `"train/loss"`; records without it are passed over. A value that is
        not a finite number, as it is or as text (`"NaN"`), becomes NaN.
    """
    found = [(record["step"], record[key]) for record in records if key in record]
    steps = np.array([step for step, _ in found], np.int64)
    # NumPy reads None and the text "NaN" as a float alike.
    values = np.array([value for _, value in found], object).astype(float)
    return steps, np.where(np.isfinite(values), values, math.nan)


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns the running mean over about a thirtieth of the values.

    The window is centred, shorter at both ends, and passes over NaN.

    Args:
      values: float `[N]`, `N` 1 or more.

    Returns:
      float `[N]`; NaN where a window holds no number.
    """
    window = np.ones(2 * (len(values) // 60) + 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0), window, mode="same")
    return _ratio(total, np.round(np.convolve(finite, window, mode="same")))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    nothing = np.full(np.shape(denominator), math.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator != 0)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u00a0%" if math.isfinite(share) else "–"


def _breakable(path: str) -> Markup:
    # A browser breaks a long path anywhere, and reads best after a separator.
    return Markup("/<wbr>").join(str(path).split("/"))


def _page(contents: Contents) -> dict[str, Any]:
    """Returns what the template asks for."""
    finite = np.isfinite(contents.probabilities).all(axis=1)
    probabilities = np.where(finite[:, None], contents.probabilities, 0)
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    # An answer that is not a number is a wrong answer, but no class was predicted.
    correct = finite & (predicted == contents.labels)
    labels = np.asarray(contents.labels, np.int64)
    matrix = confusion_matrix(labels[finite], predicted[finite], len(contents.classes))
    reliability = calibration(confidence[finite], correct[finite])
    total, support = len(labels), np.bincount(labels)
    throughput = series(contents.records, "train/images_per_second")[1]
    throughput = throughput[np.isfinite(throughput)]
    mistakes = np.flatnonzero(finite & ~correct)
    mistakes = mistakes[np.argsort(-confidence[mistakes], kind="stable")]

    def picture(index: int) -> dict[str, Any]:
        name = contents.classes[predicted[index]] if finite[index] else "not a number"
        return {
            "id": contents.ids[index],
            "true": contents.classes[labels[index]],
            "predicted": name,
            "confidence": confidence[index],
            "correct": bool(correct[index]),
        }

    return {
        "contents": contents,
        "total": total,
        "right": int(correct.sum()),
        "accuracy": correct.sum() / total,
        "interval": wilson_interval(int(correct.sum()), total),
        "commonest": support.max() / total,
        "commonest_class": contents.classes[int(support.argmax())],
        "unusable": int((~finite).sum()),
        "throughput": float(np.median(throughput)) if throughput.size else None,
        "curves": _curves(contents.records),
        "confusion": Markup(plots.confusion(matrix, contents.classes)),
        "confused": _confused(matrix, contents.classes),
        "scores": class_scores(matrix),
        "calibration": reliability,
        "reliability": Markup(plots.reliability(*reliability[:4])),
        "mistakes": len(mistakes),
        "gallery": [
            picture(index)
            | {"photograph": plots.photograph(contents.load_image(index))}
            for index in mistakes[:MISTAKES_AT_MOST].tolist()
        ],
        "heat_maps": [
            picture(heat_map.index) | _explained(contents, heat_map)
            for heat_map in contents.heat_maps
        ],
        "config": list(_flat(contents.config)),
    }


def _curves(records: Records) -> list[dict[str, Any]]:
    """Returns the figures of training; a quantity without a record has none."""
    steps, loss = series(records, "train/loss")
    losses = [_points("validate", records, "validate/loss")]
    if len(loss) < SMOOTHED_FROM:
        losses.insert(0, plots.Curve("train", steps, loss))
    else:
        raw = plots.Curve("train", steps, loss, style="raw")
        losses[:0] = [raw, plots.Curve("train, smoothed", steps, smooth(loss))]
    rate = plots.Curve("rate", *series(records, "train/learning_rate"))
    accuracy = _points("accuracy", records, "validate/accuracy")
    plotted = (
        ("Loss", "loss", losses, False),
        ("Learning rate", "learning rate", [rate], False),
        ("Accuracy on validate", "accuracy", [accuracy], True),
    )
    drawn = []
    for title, label, lines, percent in plotted:
        lines = [line for line in lines if len(line.steps)]
        if lines:
            finite = [line for line in lines if np.isfinite(line.values).any()]
            svg = plots.curves(title, finite, label, percent) if finite else ""
            gaps = sum(int(np.isnan(line.values).sum()) for line in lines)
            drawn.append({"title": title, "svg": Markup(svg), "gaps": gaps})
    return drawn


def _points(label: str, records: Records, key: str) -> plots.Curve:
    return plots.Curve(label, *series(records, key), plots.SECOND, "points")


def _confused(matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the five commonest mistakes, for more classes than an eye takes in."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:5]
    pairs = [divmod(place, len(classes)) for place in order.tolist()]
    return [
        {
            "true": classes[row],
            "predicted": classes[column],
            "count": wrong[row, column],
        }
        for row, column in pairs
        if wrong[row, column]
    ]


def _explained(contents: Contents, heat_map: HeatMap) -> dict[str, Any]:
    image = contents.load_image(heat_map.index)
    overlays = [
        {
            "level": level,
            "stride": 2**level,
            "silent": not np.nan_to_num(heat).any(),
            "photograph": plots.photograph(plots.overlay(image, heat, level)),
        }
        for level, heat in sorted(heat_map.maps.items())
    ]
    return {"photograph": plots.photograph(image), "overlays": overlays}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, default=str, ensure_ascii=False)
