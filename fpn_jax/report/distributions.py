"""Plots of how a number is distributed over the images of a split, as inline SVG."""

from typing import Any

import numpy as np
from markupsafe import Markup

from fpn_jax.report.plots import ACCENT, MUTED, SECOND, svg

SIZE = (4.6, 2.5)
"""Width and height of a plot, in inches."""


def histogram(
    name: str, values: np.ndarray, label: str, bins: int = 20, limit: float = 1.0
) -> Markup:
    """Returns how many images have which value, with the median as a line.

    Args:
      name: Name of the plot, unique on the page.
      values: float `[N]`, 0 or more; values above `limit` are in the last bin.
      label: Label of the horizontal axis, with its unit.
      bins: Number of bins of equal width.
      limit: Upper end of the axis.
    """

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        shown = np.clip(values, 0, limit)
        axes.hist(shown, bins=bins, range=(0, limit), color=ACCENT, rwidth=0.92)
        axes.axvline(float(np.median(shown)), color=SECOND, linewidth=1.6)
        _finish(axes, label, "images", limit)

    return svg(name, SIZE, draw)


def cumulative(
    name: str, values: np.ndarray, label: str, limit: float, mark: float | None = None
) -> Markup:
    """Returns the share of the images whose value is at most x, for every x.

    Args:
      name: Name of the plot, unique on the page.
      values: float `[N]`, 0 or more; they may be infinite.
      label: Label of the horizontal axis, with its unit.
      limit: Upper end of the axis.
      mark: Where a dashed line stands; None for none.
    """

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        order = np.sort(values[values <= limit])
        x = np.concatenate([[0], order, [limit]])
        share = np.concatenate([[0], np.arange(1, len(order) + 1), [len(order)]])
        axes.step(x, share / max(len(values), 1), where="post", color=ACCENT)
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=1, linestyle="--")
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g} %")
        _finish(axes, label, "images", limit)

    return svg(name, SIZE, draw)


def scatter(
    name: str, x: np.ndarray, y: np.ndarray, labels: tuple[str, str], top: float
) -> Markup:
    """Returns a point for every image.

    Args:
      name: Name of the plot, unique on the page.
      x: float `[N]`, 0 or more.
      y: float `[N]`, 0 or more.
      labels: Labels of the horizontal and of the vertical axis, with their units.
      top: Upper end of the vertical axis.
    """

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.plot(x, y, "o", color=ACCENT, markersize=3.5, alpha=0.6, markeredgewidth=0)
        axes.set_ylim(0, 1.04 * top)
        _finish(axes, *labels, 1.04 * float(x.max()) if len(x) else 1.0)

    return svg(name, SIZE, draw)


def _finish(axes: Any, x_label: str, y_label: str, limit: float) -> None:
    axes.set_xlim(0, limit)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.tick_params(length=0, axis="y")
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
