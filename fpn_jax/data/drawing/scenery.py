"""What is behind and in front of a drawn animal: walls, things, occluders, light."""

import cv2
import numpy as np

from fpn_jax.data.drawing import strokes
from fpn_jax.data.drawing.strokes import Colour, rotation, tint

GRID = 48
"""Side of the coarse fields of light and texture, which are smooth."""


def palette(rng: np.random.Generator) -> list[Colour]:
    """Returns ten colours that go together: one hue, its neighbours and accents."""
    accents = np.array([0, 0, 1 / 2, 1 / 3])[rng.integers(4, size=10)]
    hue = rng.random() + rng.normal(0, 0.09, 10) + accents
    saturation, value = rng.uniform(0.08, 0.42, 10), rng.uniform(0.4, 0.97, 10)
    hsv = np.stack([360 * (hue % 1), saturation, 250 * value], axis=1)
    rgb = cv2.cvtColor(hsv.astype(np.float32)[None], cv2.COLOR_HSV2RGB)[0]
    return [tuple(colour) for colour in rgb.tolist()]


def _fill(
    image: np.ndarray, points: np.ndarray, colour: Colour, edge: float = 0.009
) -> None:
    pixels = strokes.to_fixed(points, image.shape[0])
    cv2.fillPoly(image, [pixels], colour, cv2.LINE_AA, strokes.SHIFT)
    if edge:
        width = max(1, round(edge * image.shape[0]))
        strokes.line(image, pixels, tint(colour, 0.6), width, closed=True)


def background(
    rng: np.random.Generator, size: int, palette: list[Colour], coat: Colour
) -> np.ndarray:
    """Returns a wall, perhaps a floor, and things, uint8 `[size, size, 3]`."""
    # The wall whose brightness differs most from the fur: the animal stays visible.
    wall = max(palette[:3], key=lambda colour: abs(sum(colour) - sum(coat)))
    corners = np.array(wall) + rng.normal(0, 14, (2, 2, 3))
    corners = corners.clip(0, 255).astype(np.float32)
    image = cv2.resize(corners, (size, size)).astype(np.uint8)
    if rng.random() < 0.45:
        _stripes(rng, image, tint(wall, rng.uniform(0.8, 1.3)))
    if rng.random() < 0.6:
        left, right = rng.uniform(0.5, 0.95) + rng.uniform(-0.06, 0.06, 2)
        floor = np.array([(-0.1, left), (1.1, right), (1.1, 1.1), (-0.1, 1.1)])
        _fill(image, floor, palette[3])
    for colour in palette[4 : rng.integers(5, 9)]:
        _prop(rng, image, colour)
    return lit(image, _texture(rng))


def _stripes(rng: np.random.Generator, image: np.ndarray, colour: Colour) -> None:
    turn, gap = rotation(rng.uniform(0, np.pi)), rng.uniform(0.08, 0.2)
    stripe = np.array([(-1, 0), (1, 0), (1, 1), (-1, 1)])
    stripe = stripe * (1, gap * rng.uniform(0.2, 0.5))
    for k in range(-int(0.8 / gap), int(0.8 / gap) + 1):
        _fill(image, (stripe + np.array([0, k * gap])) @ turn + 0.5, colour, 0)


def _prop(rng: np.random.Generator, image: np.ndarray, colour: Colour) -> None:
    """Paints a ball, a pair of triangles, a frame, a blob or a plant."""
    x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.2)
    middle, angle = np.array([x, y]), rng.uniform(-0.5, 0.5)
    kind = rng.integers(5)
    if kind == 0:
        _fill(image, strokes.ellipse(x, y, r, r), colour)
        shine = strokes.ellipse(x - 0.3 * r, y - 0.35 * r, 0.25 * r, 0.18 * r, angle)
        _fill(image, shine, tint(colour, 1.6), 0)
    elif kind == 1:
        spread = rng.uniform(0.6, 1.1)
        corners = np.array([(-spread, 0.7), (0, -1.1), (spread, 0.7)])
        corners = r * corners @ rotation(angle) + middle
        _fill(image, corners, colour)
        _fill(image, corners + np.array([2 * r, 0]), colour)
    elif kind == 2:
        box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        box = r * box * rng.uniform(0.6, 1.4, 2)
        _fill(image, box + middle, colour)
        _fill(image, 0.72 * box + middle, tint(colour, 1.4), 0)
    elif kind == 3:
        knots = strokes.ellipse(x, y, r, r)[::3] + rng.normal(0, 0.2 * r, (8, 2))
        _fill(image, strokes.smooth(knots), colour)
    else:
        for turn in (-0.7, 0, 0.7):
            _fill(image, _leaf(middle, 2 * r, angle + turn - np.pi / 2), colour)


def _leaf(root: np.ndarray, length: float, angle: float) -> np.ndarray:
    t = np.linspace(0, 1, 8)
    bulge = 0.22 * np.sin(np.pi * t) ** 0.8
    rim = np.concatenate([np.stack([t, bulge], 1), np.stack([t, -bulge], 1)[-2:0:-1]])
    return rim @ rotation(angle) * length + root


def _texture(rng: np.random.Generator) -> np.ndarray:
    field = np.ones((GRID, GRID), np.float32)
    strength = np.float32(rng.uniform(0.01, 0.06))
    for cells in (4, 8, 16, 32):
        octave = rng.standard_normal((cells, cells), np.float32)
        field += strength * cv2.resize(octave, (GRID, GRID))
    return field


def lit(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Returns the image times a field `[G, G]` of factors around 1, resized to it."""
    field = cv2.resize((field * 128).clip(0, 255).astype(np.uint8), image.shape[1::-1])
    field = cv2.cvtColor(field, cv2.COLOR_GRAY2RGB)
    return cv2.multiply(image, field, scale=1 / 128)


def occlude(image: np.ndarray, shapes: list[np.ndarray], colour: Colour) -> np.ndarray:
    """Paints occluders; returns uint8 `[C, C]`, 255 on them."""
    for shape in shapes:
        _fill(image, shape, colour)
    return covered(shapes, image.shape[0])


def covered(shapes: list[np.ndarray], size: int) -> np.ndarray:
    """Returns uint8 `[size, size]`, 255 on the occluders."""
    mask = np.zeros((size, size), np.uint8)
    for shape in shapes:
        pixels = strokes.to_fixed(shape, size)
        cv2.fillPoly(mask, [pixels], 255, shift=strokes.SHIFT)
    return mask


def occluders(rng: np.random.Generator) -> list[np.ndarray]:
    """Returns bars, leaves, the edge of a box or, mostly, nothing."""
    kind = rng.integers(7)
    if kind == 0:
        turn, width = rotation(rng.uniform(-0.6, 0.6)), rng.uniform(0.025, 0.05)
        bar = np.array([(0, -1), (width, -1), (width, 1), (0, 1)])
        starts = rng.uniform(-0.5, -0.2) + 0.36 * np.arange(3)
        return [(bar + np.array([x, 0])) @ turn + 0.5 for x in starts]
    if kind == 1:
        around = rng.uniform(0, 2 * np.pi, rng.integers(2, 5))
        return [
            _leaf(
                0.5 + 0.72 * np.array([np.cos(angle), np.sin(angle)]),
                length=rng.uniform(0.3, 0.5),
                angle=angle + np.pi + rng.uniform(-0.5, 0.5),
            )
            for angle in around
        ]
    if kind == 2:
        left, right = 0.5 - rng.uniform(0.06, 0.17) + rng.uniform(-0.05, 0.05, 2)
        box = np.array([(-0.6, left), (0.6, right), (0.6, 0.7), (-0.6, 0.7)])
        return [box @ rotation(rng.integers(4) * np.pi / 2) + 0.5]
    return []


def shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """Returns an image averaged to `size × size` pixels."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
