"""The view of detections: any number of boxes for each image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fpn_jax.report import plots, precision_recall
from fpn_jax.report.html import SPLIT_NAMES, Headline, Number, Section
from fpn_jax.report.templates import count, counted, load, percent
from fpn_jax.views import marks
from fpn_jax.views.base import Answer, Evaluated, Info
from fpn_jax.views.matching import IGNORED, INVENTED, Objects, match
from fpn_jax.views.results import coco_result

CORNERS = ("x0", "y0", "x1", "y1")
EACH = 6
"""Number of pictures of each kind of mistake in the report."""
AREAS = (("small", "below 32²"), ("medium", "32² to 96²"), ("large", "96² and more"))
"""Names of COCO's areas, and their pixels."""


@dataclass(frozen=True)
class BoxesView:
    """Shows the reported boxes, their classes and their scores.

    An answer has `boxes` float `[D, 4]`, `box_scores` `[D]`, `box_labels` int `[D]`, −1
    where there is no further detection, and `box_shown` bool `[D]`: the score is high
    enough to be reported. The rows of an evaluation have these too, and `true_boxes`,
    `true_labels` and `true_crowd`.
    """

    answers: ClassVar[frozenset[str]] = frozenset(
        {"boxes", "box_scores", "box_labels", "box_shown"}
    )
    keeps: ClassVar[frozenset[str]] = answers | {
        "true_boxes",
        "true_labels",
        "true_crowd",
    }

    def columns(self, info: Info) -> tuple[str, ...]:
        """Returns `class`, `score`, and the corners of the box in pixels."""
        return ("class", "score", *CORNERS)

    def rows(self, answer: Answer, info: Info) -> list[dict[str, Any]]:
        """Returns a line for each reported box; a single empty one if there is none."""
        lines = []
        for number in np.flatnonzero(answer["box_shown"]):
            values = (round(float(value), 2) for value in answer["boxes"][number])
            lines.append(
                {
                    "class": info.classes[answer["box_labels"][number]],
                    "score": round(float(answer["box_scores"][number]), 6),
                    **dict(zip(CORNERS, values, strict=True)),
                }
            )
        return lines or [dict.fromkeys(self.columns(info), "")]

    def draw(self, image: np.ndarray, answer: Answer, info: Info) -> np.ndarray:
        """Returns the picture, enlarged if it is small, with the reported boxes."""
        picture, factor = marks.enlarged(image)
        shown = np.flatnonzero(answer["box_shown"])
        # The best box is painted last, on top of the others.
        for number in shown[::-1]:
            label = int(answer["box_labels"][number])
            score = float(answer["box_scores"][number])
            text = f"{info.classes[label]} {percent(score, 0)}"
            corners = factor * answer["boxes"][number]
            marks.box(picture, corners, marks.colour_of(label), text)
        if not len(shown):
            marks.label(picture, (0, 0), "nothing", (90, 90, 90))
        return picture

    def files(self, answer: Answer, info: Info) -> dict[str, np.ndarray]:
        """Returns `{}`."""
        return {}

    def results(self, answer: Answer, info: Info) -> list[dict[str, Any]] | None:
        """Returns the entries of all detections, also of those that are not reported.

        Average precision needs the ones with low scores, too.
        """
        return [
            coco_result(
                answer["boxes"][number],
                int(answer["box_labels"][number]),
                float(answer["box_scores"][number]),
                info,
            )
            for number in np.flatnonzero(answer["box_labels"] >= 0)
        ]

    def headline(self, evaluated: Evaluated, info: Info) -> Headline:
        """Returns average precision, and how many objects are found and invented."""
        metrics, found = evaluated.metrics, _Matched.of(evaluated)
        split = SPLIT_NAMES.get(evaluated.split, evaluated.split)
        total, invented = found.true_count, found.invented_count
        share = found.found_count / total if total else float("nan")
        return Headline(
            lead=f"{counted(total, 'object')} in {counted(len(evaluated.ids), 'image')}"
            f" of the {split} split; average precision as COCO defines it.",
            numbers=(
                Number("AP", _ap(metrics["ap"], 2), "mean over IoU 0.50 to 0.95"),
                Number("AP at IoU 0.50", _ap(metrics["ap50"])),
                Number("AP at IoU 0.75", _ap(metrics["ap75"])),
                Number(
                    "Found",
                    percent(share),
                    "of the objects, with the right class; reported boxes without an "
                    f"object: {count(invented)}",
                ),
            ),
        )

    def sections(self, evaluated: Evaluated, info: Info) -> list[Section]:
        """Returns curves, AP by size and class, confusion, and mistakes as pictures."""
        found = _Matched.of(evaluated)
        if not found.true_count:
            empty = _macros().empty("No image shows an object.")
            return [Section("boxes", "Boxes", empty)]
        curves = _macros().plot(
            plot=precision_recall.plot("precision", found.curves(info)),
            alt="Precision over recall of each class, at IoU 0.5",
            note="A box is right if its class is right and its IoU 0.5 or more. Each "
            "step lowers the score from which boxes count.",
        )
        matrix = found.confusion(len(info.classes))
        names = (*info.classes, "background")
        confusion = _macros().plot(
            plot=plots.confusion(matrix, names),
            alt="Confusion matrix of the classes and the background",
            note="Reported boxes and true boxes with an IoU of 0.5 or more, of any "
            "class. The last column counts missed objects, the last row boxes without "
            "an object.",
        )
        return [
            Section("curves", "Precision and recall", curves, "Curves", paired=True),
            Section("confusion", "Confusion", confusion, paired=True),
            Section("sizes", "By size", _by_size(evaluated, found), paired=True),
            Section(
                "classes", "By class", _by_class(evaluated, info, found), paired=True
            ),
            *_galleries(evaluated, info, found),
        ]

    def mistakes(self, evaluated: Evaluated, info: Info) -> list[dict[str, Any]]:
        """Returns images with missed, doubled or invented objects, the most first."""
        found = _Matched.of(evaluated)
        lines = [
            {
                "id": evaluated.ids[row],
                "objects": int(len(one.objects.true_boxes) - one.objects.crowd.sum()),
                "missed": len(one.missed),
                "doubled": len(one.doubled),
                "invented": len(one.invented),
            }
            for row, one in enumerate(found.images)
        ]
        wrong = [line for line in lines if _wrong(line)]
        return sorted(wrong, key=_wrong, reverse=True)


def _wrong(line: dict[str, Any]) -> int:
    return line["missed"] + line["doubled"] + line["invented"]


@dataclass(frozen=True)
class _Image:
    """The reported boxes of one image, and what is wrong with them.

    Attributes:
      objects: The reported detections and the true boxes.
      missed: Numbers of true boxes that no box of their class found.
      doubled: Numbers of detections of an object that a better one found.
      invented: Numbers of all other detections that found nothing.
    """

    objects: Objects
    missed: np.ndarray
    doubled: np.ndarray
    invented: np.ndarray

    @classmethod
    def of(cls, objects: Objects) -> "_Image":
        """Returns the comparison of one image."""
        shown = objects.only_shown()
        found = match(shown)
        missed = set(np.flatnonzero(~shown.crowd)) - set(found[found >= 0])
        wrong = found == INVENTED
        # A second box on an object would have found it, were the object still free.
        again = np.zeros(len(found), bool)
        for number in np.flatnonzero(wrong):
            alone = shown._replace(
                boxes=shown.boxes[[number]], labels=shown.labels[[number]]
            )
            again[number] = match(alone)[0] >= 0
        return cls(
            shown,
            np.array(sorted(missed), int),
            np.flatnonzero(wrong & again),
            np.flatnonzero(wrong & ~again),
        )


@dataclass(frozen=True)
class _Matched:
    """A split whose detections are compared with the truth."""

    all_objects: list[Objects]
    images: list[_Image]

    @classmethod
    def of(cls, evaluated: Evaluated) -> "_Matched":
        """Returns the comparison of every image."""
        objects = [Objects.of(evaluated.rows, row) for row in range(len(evaluated.ids))]
        return cls(objects, [_Image.of(one) for one in objects])

    @property
    def true_count(self) -> int:
        """Number of true boxes that are no crowd."""
        return sum(int((~one.crowd).sum()) for one in self.all_objects)

    @property
    def found_count(self) -> int:
        """Number of true boxes that a reported box found."""
        return self.true_count - sum(len(one.missed) for one in self.images)

    @property
    def invented_count(self) -> int:
        """Number of reported boxes that found no object."""
        return sum(len(one.invented) + len(one.doubled) for one in self.images)

    def curves(self, info: Info) -> list[precision_recall.PrecisionRecall]:
        """Returns precision over recall of every class that is there, at IoU 0.5."""
        found = [match(one) for one in self.all_objects]
        scores = np.concatenate([one.scores for one in self.all_objects])
        labels = np.concatenate([one.labels for one in self.all_objects])
        matched = np.concatenate(found)
        true_labels = np.concatenate(
            [one.true_labels[~one.crowd] for one in self.all_objects]
        )
        curves = []
        for label, name in enumerate(info.classes):
            total = int((true_labels == label).sum())
            chosen = (labels == label) & (matched != IGNORED)
            if not total or not chosen.any():
                continue
            order = np.argsort(-scores[chosen], kind="stable")
            right = np.cumsum(matched[chosen][order] >= 0)
            precision = right / np.arange(1, len(right) + 1)
            colour = marks.colour_of(label)
            curves.append(
                precision_recall.PrecisionRecall(name, right / total, precision, colour)
            )
        return curves

    def confusion(self, num_classes: int) -> np.ndarray:
        """Returns counts `[K + 1, K + 1]`: true class, predicted class; K is none."""
        matrix = np.zeros((num_classes + 1, num_classes + 1), int)
        for image in self.images:
            objects = image.objects
            found = match(objects, by_class=False)
            for number, truth in enumerate(found):
                if truth == IGNORED:
                    continue
                true = objects.true_labels[truth] if truth >= 0 else num_classes
                matrix[true, objects.labels[number]] += 1
            left = set(np.flatnonzero(~objects.crowd)) - set(found[found >= 0])
            for truth in left:
                matrix[objects.true_labels[truth], num_classes] += 1
        return matrix


def _macros() -> Any:
    return load(Path(__file__).with_name("dense.html")).module


def _ap(value: float, digits: int = 1) -> str:
    """Returns an average precision in per cent; a dash where there is no true box."""
    return percent(value if value >= 0 else float("nan"), digits)


def _by_size(evaluated: Evaluated, found: _Matched) -> Any:
    """Returns a table of AP by the size of the objects."""
    boxes = np.concatenate([one.true_boxes[~one.crowd] for one in found.all_objects])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    which = np.digitize(area, (32**2, 96**2))
    rows = [
        (
            f"{name} ({pixels} pixels)",
            count(int((which == number).sum())),
            _ap(evaluated.metrics[f"ap_{name}"]),
            _ap(evaluated.metrics[f"ar_{name}"]),
        )
        for number, (name, pixels) in enumerate(AREAS)
    ]
    return _macros().table(("area of the true box", "objects", "AP", "AR"), rows)


def _by_class(evaluated: Evaluated, info: Info, found: _Matched) -> Any:
    """Returns a table of AP by class."""
    labels = np.concatenate([one.true_labels[~one.crowd] for one in found.all_objects])
    rows = [
        (
            name,
            count(int((labels == label).sum())),
            _ap(evaluated.metrics["class_ap"][label]),
            _ap(evaluated.metrics["class_ap50"][label]),
        )
        for label, name in enumerate(info.classes)
    ]
    return _macros().table(("class", "objects", "AP", "AP at IoU 0.50"), rows)


def _galleries(evaluated: Evaluated, info: Info, found: _Matched) -> list[Section]:
    """Returns pictures with missed, doubled and invented objects."""
    kinds = (
        ("missed", "Missed objects"),
        ("invented", "Boxes without an object"),
        ("doubled", "Second boxes on one object"),
    )
    sections = []
    for kind, title in kinds:
        rows = [r for r, one in enumerate(found.images) if len(getattr(one, kind))]
        rows.sort(key=lambda r: -len(getattr(found.images[r], kind)))
        if not rows:
            html = _macros().empty("There is none among the reported boxes.")
        else:
            html = _macros().sheet(
                items=[
                    {
                        "rank": f"{len(getattr(found.images[row], kind))} {kind}",
                        "id": evaluated.ids[row],
                        "value": _of(found.images[row]),
                        "pictures": [
                            {
                                "name": "white: truth",
                                "uri": plots.data_uri(
                                    _picture(evaluated, info, found.images[row], row)
                                ),
                            }
                        ],
                    }
                    for row in rows[:EACH]
                ]
            )
        sections.append(Section(kind, title, html, label=kind.capitalize()))
    return sections


def _of(image: _Image) -> str:
    """Returns how many objects an image has."""
    number = int((~image.objects.crowd).sum())
    return f"of {counted(number, 'object')}"


def _picture(evaluated: Evaluated, info: Info, image: _Image, row: int) -> np.ndarray:
    """Returns a picture with true boxes in white and reported ones in colour."""
    picture, factor = marks.enlarged(evaluated.load_image(row))
    for corners in image.objects.true_boxes:
        marks.box(picture, factor * corners, marks.TRUTH)
    objects = image.objects
    for number in range(len(objects.boxes))[::-1]:
        label = int(objects.labels[number])
        text = f"{info.classes[label]} {percent(float(objects.scores[number]), 0)}"
        marks.box(picture, factor * objects.boxes[number], marks.colour_of(label), text)
    return picture
