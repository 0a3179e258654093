"""Plots as inline SVG and pictures as JPEG data URIs, for the pages of a report.

Functions import matplotlib when they draw, without pyplot, so that importing this
module is quick and no global state changes.
"""

import base64
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

# Each placeholder colour is replaced by a role. The style sheet of the page defines
# the roles for the light and for the dark scheme.
INK, MUTED, LINE = "#010101", "#020202", "#030303"
ACCENT, SECOND, ON_ACCENT = "#040404", "#050505", "#060606"
ROLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    ON_ACCENT: "var(--on-accent)",
}
STYLE = {
    # Text stays text: the browser draws it, and a `$` in a name is not mathematics.
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
}
POINTS_AT_MOST = 2000
PICTURE_SIDE = 384


@dataclass(frozen=True)
class Curve:
    """One quantity over the steps of training.

    Attributes:
      label: Name of the curve in the legend.
      steps: int `[N]`.
      values: float `[N]`; NaN leaves a gap.
      color: One of the roles, such as `ACCENT`.
      style: `"raw"` is a pale line, `"line"` is a strong line, `"points"` is a strong
        line with a marker at each value.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    color: str = ACCENT
    style: str = "line"


def curves(
    name: str,
    series: Sequence[Curve],
    label: str,
    percent: bool = False,
    wide: bool = False,
) -> Markup:
    """Returns curves over the steps of training, as SVG.

    Args:
      name: Name of the plot, unique on the page.
      series: The curves. Of more than 2,000 values, evenly spaced ones are drawn.
      label: Label of the vertical axis, with its unit.
      percent: Whether the values are shares that are shown in per cent.
      wide: Whether the plot is 4.6 × 2.5 inches instead of 3.5 × 2.5.
    """
    looks = {
        "raw": {"linewidth": 0.9, "alpha": 0.45},
        "line": {"linewidth": 1.8},
        "points": {"linewidth": 1.8, "marker": "o", "markersize": 3.5},
    }

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for curve in series:
            stride = -(-len(curve.steps) // POINTS_AT_MOST) or 1
            look = dict(looks[curve.style])
            if len(curve.steps) == 1:
                look["marker"] = "o"
            axes.plot(
                curve.steps[::stride],
                curve.values[::stride],
                label=curve.label,
                color=curve.color,
                **look,
            )
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.locator_params(axis="y", nbins=6)
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        shown = (lambda x, _: f"{100 * x:g} %") if percent else (lambda x, _: f"{x:g}")
        axes.yaxis.set_major_formatter(shown)
        axes.tick_params(length=0, axis="y")
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.02, y=0.08)
        if len(series) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)

    return svg(name, (4.6 if wide else 3.5, 2.5), draw)


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Markup:
    """Returns a confusion matrix, shaded by the share of each row, as SVG.

    Args:
      matrix: int `[classes, classes]`; rows are labels, columns are predictions.
      classes: Name of each class.
    """
    from matplotlib.patches import Rectangle

    count = len(classes)
    side = min(3.4 + 0.17 * count, 9.5)
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in classes]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(aspect="equal")
        size = 13 if count <= 4 else max(9 - 0.1 * count, 5.5)
        for (row, column), share in np.ndenumerate(shares):
            if share == 0 and count > 12:
                continue
            corner = (column - 0.48, row - 0.48)
            look = {"color": ACCENT, "alpha": 0.06 + 0.94 * share, "linewidth": 0}
            axes.add_patch(Rectangle(corner, 0.96, 0.96, **look))
            axes.text(
                column,
                row,
                f"{matrix[row, column]:,}",
                ha="center",
                va="center",
                fontsize=size,
                # The colour with the better contrast, in both colour schemes.
                color=ON_ACCENT if share > 0.75 else INK,
            )
        slanted = count > 6 or max(map(len, names)) > 10
        axes.set_xticks(range(count), names, rotation=90 if slanted else 0)
        axes.set_yticks(range(count), names)
        axes.tick_params(length=0, labelsize=9 if count <= 12 else 7.5)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.spines[:].set_visible(True)

    return svg(name="confusion", size=(side, side), draw=draw)


def reliability(
    edges: np.ndarray, count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray
) -> Markup:
    """Returns a reliability diagram above the histogram of confidence, as SVG.

    "On Calibration of Modern Neural Networks" (arXiv 1706.04599), figure 1.

    Args:
      edges: float `[bins + 1]`, edges of the bins of confidence, 0 to 1.
      count: int `[bins]`, number of images in each bin.
      confidence: float `[bins]`, mean confidence; NaN where the bin is empty.
      accuracy: float `[bins]`; NaN where the bin is empty.
    """
    full = count > 0
    left, width = edges[:-1][full], np.diff(edges)[full]
    first = min(left.min(initial=1.0), 0.5)

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        bar = {"width": width, "align": "edge", "color": ACCENT, "linewidth": 0}
        upper.bar(left + 0.04 * width, accuracy[full], alpha=0.45, **_inset(bar))
        upper.plot(
            (0, 1), (0, 1), "--", color=MUTED, linewidth=1, label="perfect calibration"
        )
        upper.plot(
            confidence[full],
            accuracy[full],
            "o-",
            color=SECOND,
            markersize=3.5,
            linewidth=1.4,
            clip_on=False,
            zorder=3,
            label="this model",
        )
        lower.bar(left + 0.04 * width, count[full] / count.sum(), **_inset(bar))
        for axes, title in ((upper, "accuracy"), (lower, "images")):
            axes.set_ylabel(title)
            axes.yaxis.set_major_formatter(lambda x, _: f"{100 * x:g} %")
            axes.grid(axis="y")
            axes.tick_params(length=0, axis="y")
            axes.spines["left"].set_visible(False)
        upper.tick_params(length=0, axis="x")
        upper.set_ylim(0, 1.03)
        upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)
        lower.locator_params(axis="y", nbins=3)
        lower.set_xlim(first, 1)
        lower.set_xlabel("confidence in the predicted class")
        lower.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g} %")

    return svg(name="reliability", size=(3.9, 3.8), draw=draw)


def data_uri(image: np.ndarray) -> str:
    """Returns a picture as a JPEG data URI, at most 384 pixels on its longer side.

    Args:
      image: uint8 `[H, W, 3]`, RGB.

    Raises:
      ValueError: The picture has another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"a picture of the report is {image.dtype} {list(image.shape)}; "
            "it has to be uint8 [H, W, 3]"
        )
    height, width = image.shape[:2]
    scale = PICTURE_SIDE / max(height, width)
    if scale < 1:
        # A very long picture keeps at least one pixel of its short side.
        size = max(round(scale * width), 1), max(round(scale * height), 1)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def overlay(image: np.ndarray, heat: np.ndarray, level: int) -> np.ndarray:
    """Returns a picture in dim grey with a heat map in colour over it.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      heat: float `[ceil(H / 2**level), ceil(W / 2**level)]`, 0 to 1; a value that is
        not finite counts as 0.
      level: Level of the pyramid; a cell covers `2**level` pixels each way.

    Returns:
      uint8 `[H, W, 3]`, RGB.

    Raises:
      ValueError: The map does not fit the picture at this level.
    """
    import matplotlib

    height, width = image.shape[:2]
    stride = 2**level
    expected = (-(-height // stride), -(-width // stride))
    if heat.shape != expected:
        raise ValueError(
            f"the heat map of level {level} is {list(heat.shape)}, but a picture of "
            f"{height} × {width} pixels has {list(expected)} cells there"
        )
    heat = np.clip(np.nan_to_num(heat.astype(np.float32)), 0, 1)
    # The last cells may exceed an odd-sized picture: enlarge first, then crop.
    enlarged = (expected[1] * stride, expected[0] * stride)
    heat = cv2.resize(heat, enlarged, interpolation=cv2.INTER_LINEAR)[:height, :width]
    colour = matplotlib.colormaps["inferno"](0.25 + 0.75 * heat)[..., :3]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] / 255.0
    opacity = 0.85 * np.sqrt(heat)[..., None]
    blend = (1 - opacity) * 0.75 * grey + opacity * (0.35 * grey + 0.65 * colour)
    return np.round(255 * np.clip(blend, 0, 1)).astype(np.uint8)


def _inset(bar: dict[str, Any]) -> dict[str, Any]:
    return bar | {"width": 0.92 * bar["width"]}


def svg(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> Markup:
    """Returns what `draw` paints on a figure of `size` inches, as inline SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        with warnings.catch_warnings():
            # The browser draws the text with a font that has the missing glyphs.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            draw(figure)
            figure.savefig(
                text,
                format="svg",
                transparent=True,
                bbox_inches="tight",
                pad_inches=0.03,
                metadata=nothing,
            )
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    # Ids have to be unique on the page; nothing refers to the ids of groups.
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r"font-family: [^;]*; ", "", drawn)
    drawn = re.sub("|".join(ROLES), lambda match: ROLES[match[0]], drawn)
    # matplotlib escapes all text, so the SVG is safe to include.
    return Markup(drawn.replace("<svg ", '<svg aria-hidden="true" ', 1))
