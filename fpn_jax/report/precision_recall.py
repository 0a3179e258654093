"""Curves of precision over recall, as inline SVG."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from fpn_jax.report.plots import svg

SIZE = (4.6, 3.4)
"""Width and height of the plot, in inches."""


class PrecisionRecall(NamedTuple):
    """The curve of one class.

    Attributes:
      label: Name of the curve in the legend.
      recall: float `[N]`, increasing, 0 to 1.
      precision: float `[N]`, 0 to 1.
      colour: RGB, 0 to 255.
    """

    label: str
    recall: np.ndarray
    precision: np.ndarray
    colour: tuple[int, int, int]


def plot(name: str, curves: Sequence[PrecisionRecall]) -> Markup:
    """Returns the curves, as SVG.

    Args:
      name: Name of the plot, unique on the page.
      curves: One for each class.
    """

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for curve in curves:
            axes.step(
                np.concatenate([[0], curve.recall]),
                np.concatenate([curve.precision[:1], curve.precision]),
                where="pre",
                label=curve.label,
                color=[channel / 255 for channel in curve.colour],
                linewidth=1.8,
            )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.04)
        axes.set_xlabel("recall: share of the true boxes that are found")
        axes.set_ylabel("precision")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.tick_params(length=0, axis="y")
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderpad=0)

    return svg(name, SIZE, draw)
