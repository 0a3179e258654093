"""Writes the report of a run: one HTML file that opens without a network.

This is the frame that every task shares. What is specific to a kind of answer comes
from its view, as a `Headline` and as `Section`s.
"""

import collections
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from markupsafe import Markup

from fpn_jax.report import plots, statistics, templates
from fpn_jax.report.statistics import Entries, series

SPLIT_NAMES = {"train": "training", "validate": "validation", "test": "test"}
"""Split → its name in a sentence, as in "the validation images"."""

SMOOTHED_FROM = 60
FRAME_ANCHORS = ("training", "skipped", "config")


@dataclass(frozen=True)
class Number:
    """One of the large numbers in the head of the page.

    Attributes:
      label: What it is, in a few words.
      value: The number as text, with its unit.
      note: A line in small type below it.
      interval: Lower and upper end of an interval, 0 to 1, drawn as a range; or None.
    """

    label: str
    value: str
    note: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Headline:
    """What the head of the page says.

    Attributes:
      lead: One or two sentences below the title.
      numbers: The first one is shown largest.
      warnings: Sentences that a reader must not miss.
    """

    lead: str
    numbers: tuple[Number, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """One `<section>` of the page.

    Attributes:
      anchor: The `id` of the section, of lower-case letters and hyphens.
      title: The heading.
      html: What follows the heading. It is trusted: a view renders it with
        `templates.load`. Plain text is escaped.
      label: The link in the navigation; `title` where it is empty.
      paired: Whether it is shown beside the next section or the one before, if that
        one is paired, too.
    """

    anchor: str
    title: str
    html: Markup
    label: str = ""
    paired: bool = False


@dataclass(frozen=True)
class Contents:
    """The contents of a report.

    Attributes:
      title: Heading of the page.
      config: The resolved config, nested.
      environment: Versions, devices and flags of the run.
      entries: The lines of `metrics.jsonl`, such as `{"step": 100, "train/loss": 0.6,
        "train/learning_rate": 0.1, "train/images_per_second": 900.0}` or `{"step": 100,
        "validate/accuracy": 0.8, "validate/loss": 0.5}`.
      headline: The head of the page.
      sections: What the view shows, in order.
      skipped: `(id, reason)` of each file that could not be used.
      step: Step of the checkpoint that was evaluated.
      split: Name of the split that was evaluated.

    Raises:
      ValueError: Two sections have the same anchor.
    """

    title: str
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    entries: Entries
    headline: Headline
    sections: Sequence[Section]
    skipped: Sequence[tuple[str, str]]
    step: int
    split: str

    def __post_init__(self):
        anchors = [*FRAME_ANCHORS, *(section.anchor for section in self.sections)]
        repeated = [a for a, n in collections.Counter(anchors).items() if n > 1]
        if repeated:
            raise ValueError(f"two sections of the report are called {repeated[0]!r}")


def write(path: str | epath.PathLike, contents: Contents) -> None:
    """Writes the report; the same contents give the same bytes.

    Args:
      path: The `.html` file; its folder is created if it is missing.
      contents: What the report says.
    """
    template = templates.load(Path(__file__).with_name("template.html"))
    page = template.render(
        contents=contents,
        split=SPLIT_NAMES.get(contents.split, contents.split),
        numbers=[*contents.headline.numbers, _step(contents)],
        plots=_training_plots(contents.entries),
        rows=[
            list(sections)
            for _, sections in itertools.groupby(
                contents.sections, key=lambda section: section.paired
            )
        ],
        config=list(_flat(contents.config)),
    )
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)


def _step(contents: Contents) -> Number:
    speed = series(contents.entries, "train/images_per_second")[1]
    speed = speed[np.isfinite(speed)]
    note = f"{np.median(speed):,.0f} images/s in training" if speed.size else ""
    return Number("Step", templates.count(contents.step), note or "of the checkpoint")


def _training_plots(entries: Entries) -> list[dict[str, Any]]:
    """Returns the plots of training; a quantity without an entry has none."""
    rate = plots.Curve("rate", *series(entries, "train/learning_rate"))
    plotted = [
        ("Loss", "loss", _losses(entries), False),
        ("Learning rate", "learning rate", [rate], False),
    ]
    for name in _validated(entries):
        curve = _validation_curve(name, entries)
        title = f"Validation {curve.label}"
        plotted.append((title, curve.label, [curve], name == "accuracy"))
    plotted = [plot for plot in plotted if any(len(c.steps) for c in plot[2])]
    # Three plots make a row. One, two or four make rows of two, so they are wider.
    wide = len(plotted) in (1, 2, 4)
    drawn = []
    for title, label, curves, percent in plotted:
        finite = [curve for curve in curves if np.isfinite(curve.values).any()]
        svg = plots.curves(title, finite, label, percent, wide) if finite else ""
        gaps = sum(int(np.isnan(curve.values).sum()) for curve in curves)
        drawn.append({"title": title, "svg": svg, "gaps": gaps, "wide": wide})
    return drawn


def _losses(entries: Entries) -> list[plots.Curve]:
    """Returns the curves of the loss: of training, and of validation."""
    steps, loss = series(entries, "train/loss")
    if len(loss) < SMOOTHED_FROM:
        training = [plots.Curve("training", steps, loss)]
    else:
        training = [
            plots.Curve("training", steps, loss, style="raw"),
            plots.Curve("smoothed", steps, statistics.smooth(loss)),
        ]
    validation = series(entries, "validate/loss")
    return [
        *training,
        plots.Curve("validation", *validation, color=plots.SECOND, style="points"),
    ]


def _validated(entries: Entries) -> list[str]:
    """Returns the names of the validation metrics beside the loss, accuracy first."""
    keys = dict.fromkeys(key for entry in entries for key in entry)
    names = [key[len("validate/") :] for key in keys if key.startswith("validate/")]
    names = [name for name in names if name != "loss"]
    return sorted(names, key=lambda name: name != "accuracy")


def _validation_curve(name: str, entries: Entries) -> plots.Curve:
    found = series(entries, f"validate/{name}")
    label = name.replace("_", " ")
    return plots.Curve(label, *found, color=plots.SECOND, style="points")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields each value of a nested config as `("model.width", "256")`."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, default=str, ensure_ascii=False)
