"""Layers of curves, their projection into an image, and how they are painted.

Curves are in head units: a head is about 2 wide, the origin is its middle, x points
right and y down. Pixels, masks, boxes and landmarks are all computed from the points of
`Pose.project`, so an annotation is exact by construction.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

Colour = tuple[float, float, float]

SHIFT = 4
"""OpenCV draws at sixteenths of a pixel: `2**SHIFT` steps."""

_SUBPIXELS = 2**SHIFT
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""The unit circle as 24 points, `[24, 2]`."""


class Stroke(NamedTuple):
    """One curve in one colour.

    Attributes:
      points: `[N, 2]`, head units.
      colour: RGB, 0 to 255.
      depth: Distance in front of the plane of the head's outline, head units.
      width: Width of an open line, head units; 0 for a filled closed curve.
    """

    points: np.ndarray
    colour: Colour
    depth: float = 0.3
    width: float = 0.0


class Layer(NamedTuple):
    """A stroke with marks that are clipped to it.

    Attributes:
      base: The shape.
      marks: Strokes seen only inside a filled base.
      edge: Width of a dark outline, head units; 0 for none.
      part: `"head"` or `"ear"` (these make the head box), `"body"`, or `""` for what
        does not belong to the silhouette.
    """

    base: Stroke
    marks: tuple[Stroke, ...] = ()
    edge: float = 0.0
    part: str = ""


@dataclass(frozen=True)
class Pose:
    """Position, size and direction of a head in the image.

    Attributes:
      centre: `(x, y)` of the head's middle, fractions of the image side.
      scale: Half the head's width, a fraction of the image side.
      roll: Rotation in the image, radians, clockwise.
      yaw: Turn to the side, radians.
      pitch: Nod, radians; positive looks down.
      stretch: Width over height.
      perspective: `(x, y)` slope of the distance per head unit.
    """

    centre: tuple[float, float]
    scale: float
    roll: float
    yaw: float
    pitch: float
    stretch: float
    perspective: tuple[float, float]

    def project(self, points: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
        """Returns points in the image, `[N, 2]`, as fractions of the image side.

        Args:
          points: `[N, 2]`, head units.
          depth: `[N]` or a number, head units.
        """
        x = points[:, 0] * math.cos(self.yaw) + depth * math.sin(self.yaw)
        y = points[:, 1] * math.cos(self.pitch) + depth * math.sin(self.pitch)
        distance = 1 + self.perspective[0] * x + self.perspective[1] * y
        turned = np.stack([x * self.stretch, y / self.stretch], axis=1)
        turned = turned @ rotation(self.roll) * (self.scale / distance)[:, None]
        return turned + np.array(self.centre)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
    """Returns an ellipse as 24 points, `[24, 2]`, turned by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    axes = np.array([[rx * cos, rx * sin], [-ry * sin, ry * cos]])
    return CIRCLE @ axes + np.array([x, y])


def rotation(angle: float) -> np.ndarray:
    """Returns the matrix `[2, 2]` that turns rows `(x, y)` clockwise by `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


@functools.cache
def _spline(knots: int, closed: bool) -> np.ndarray:
    """Returns the matrix `[6 * stretches, knots]` from knots to points."""
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]
    weights = np.concatenate(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            t**3 - t**2,
        ],
        axis=1,
    )
    segments = knots if closed else knots - 1
    matrix = np.zeros((segments * 6, knots))
    for segment in range(segments):
        for k in range(4):
            knot = segment + k - 1
            knot = knot % knots if closed else min(max(knot, 0), knots - 1)
            matrix[segment * 6 : segment * 6 + 6, knot] += weights[:, k] / 2
    return matrix


def smooth(knots: np.ndarray | list, closed: bool = True) -> np.ndarray:
    """Returns a Catmull-Rom curve through the knots, six points for each stretch.

    Args:
      knots: `[K, 2]`.
      closed: Whether the last knot leads back to the first.
    """
    return _spline(len(knots), closed) @ np.asarray(knots, np.float64)


def tint(colour: Colour, factor: float) -> Colour:
    """Returns a darker colour (factor below 1), or a lighter one, towards white."""
    red, green, blue = colour
    if factor <= 1:
        return factor * red, factor * green, factor * blue
    white, kept = 250 * (factor - 1), 2 - factor
    return white + kept * red, white + kept * green, white + kept * blue


class Placed(NamedTuple):
    """A layer with the coordinates of its points in one image.

    Attributes:
      layer: What is drawn.
      base: int32 `[N, 2]`, in sixteenths of a pixel from the middle of the first one.
      marks: The points and the width of every mark.
      width: Width of an open base, pixels; 0 for a filled one.
      edge: Width of the outline, pixels; 0 for none.
    """

    layer: Layer
    base: np.ndarray
    marks: list[tuple[np.ndarray, int]]
    width: int
    edge: int


def project(strokes: list[Stroke], pose: Pose) -> np.ndarray:
    """Returns the points of all strokes, one after another, as `pose` projects them."""
    return pose.project(
        np.concatenate([stroke.points for stroke in strokes]),
        np.repeat([s.depth for s in strokes], [len(s.points) for s in strokes]),
    )


def to_fixed(points: np.ndarray, size: int) -> np.ndarray:
    """Returns points as the integers that OpenCV draws with `shift=SHIFT`.

    Args:
      points: `[N, 2]`, fractions of the image side.
      size: Side of the image, pixels.

    Returns:
      int32 `[N, 2]`.
    """
    # Coordinates of a record start at an edge, OpenCV's at the middle of a pixel.
    return np.rint((points * size - 0.5) * _SUBPIXELS).astype(np.int32)


def place(layers: list[Layer], pose: Pose, size: int) -> list[Placed]:
    """Returns the layers with the coordinates they have in a square image.

    Args:
      layers: From the back to the front.
      pose: Of the head.
      size: Side of the image, pixels.
    """
    strokes = [stroke for layer in layers for stroke in (layer.base, *layer.marks)]
    fixed = to_fixed(project(strokes, pose), size)
    ends = np.cumsum([len(stroke.points) for stroke in strokes]).tolist()
    pieces = iter([fixed[start:end] for start, end in itertools.pairwise([0, *ends])])
    unit = pose.scale * size
    return [
        Placed(
            layer,
            base=next(pieces),
            marks=[(next(pieces), _pixels(m.width * unit)) for m in layer.marks],
            width=_pixels(layer.base.width * unit),
            edge=_pixels(layer.edge * unit),
        )
        for layer in layers
    ]


def silhouette(placed: list[Placed], size: int) -> np.ndarray:
    """Returns uint8 `[size, size]`, 255 inside of every layer with a `part`."""
    mask = np.zeros((size, size), np.uint8)
    for layer, base, _, width, edge in placed:
        if layer.part and width:
            cv2.polylines(mask, [base], False, 255, width + edge, shift=SHIFT)
        elif layer.part:
            cv2.fillPoly(mask, [base], 255, shift=SHIFT)
            if edge:
                cv2.polylines(mask, [base], True, 255, edge, shift=SHIFT)
    return mask


def paint(image: np.ndarray, placed: list[Placed]) -> None:
    """Paints layers, back to front, into uint8 `[size, size, 3]`, in place."""
    for layer, base, marks, width, edge in placed:
        colour = layer.base.colour
        if width:
            if edge:
                line(image, base, tint(colour, 0.42), width + edge)
            line(image, base, colour, width)
            continue
        cv2.fillPoly(image, [base], colour, cv2.LINE_AA, SHIFT)
        if marks:
            _paint_clipped(image, layer, base, marks)
        if edge:
            line(image, base, tint(colour, 0.42), edge, closed=True)


def _paint_clipped(
    image: np.ndarray,
    layer: Layer,
    base: np.ndarray,
    marks: list[tuple[np.ndarray, int]],
) -> None:
    low = np.maximum(base.min(axis=0) // _SUBPIXELS, 0)
    high = np.minimum(base.max(axis=0) // _SUBPIXELS + 2, image.shape[0])
    if (low >= high).any():
        return
    window = image[low[1] : high[1], low[0] : high[0]]
    inside = np.zeros(window.shape[:2], np.uint8)
    cv2.fillPoly(inside, [base - low * _SUBPIXELS], 255, shift=SHIFT)
    marked = window.copy()
    for stroke, (points, width) in zip(layer.marks, marks, strict=True):
        points = points - low * _SUBPIXELS
        if width:
            line(marked, points, stroke.colour, width)
        else:
            cv2.fillPoly(marked, [points], stroke.colour, cv2.LINE_AA, SHIFT)
    cv2.copyTo(marked, inside, window)


def line(
    image: np.ndarray,
    points: np.ndarray,
    colour: Colour,
    width: int,
    closed: bool = False,
) -> None:
    """Draws a line of `width` pixels through fixed-point `points`, in place."""
    # In OpenCV a thick line with antialiasing is six times slower, and the image is
    # reduced later anyway; only a line of one pixel needs the antialiasing.
    kind = cv2.LINE_AA if width == 1 else cv2.LINE_8
    cv2.polylines(image, [points], closed, colour, width, kind, SHIFT)


def _pixels(width: float) -> int:
    return max(1, round(width)) if width else 0
