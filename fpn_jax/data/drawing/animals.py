"""Cats and dogs as layers of curves.

All lengths are in head units: the head is about 2 wide, the origin is its middle, x
points right and y down.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fpn_jax.data.drawing.strokes import (
    CIRCLE,
    Colour,
    Layer,
    Stroke,
    ellipse,
    rotation,
    smooth,
    tint,
)

CAT, DOG = 0, 1

_WHITE = (244.0, 240.0, 232.0)
_DARK = (44.0, 38.0, 42.0)
_PINK = (226.0, 150.0, 146.0)
_FURS = np.array(
    [
        [240, 234, 222],
        [230, 204, 164],
        [216, 140, 72],
        [188, 140, 96],
        [138, 94, 64],
        [98, 70, 58],
        [150, 148, 150],
        [108, 116, 130],
        [70, 68, 76],
    ],
    np.float64,
)
_IRISES = ((150, 190, 80), (226, 176, 60), (110, 176, 206), (176, 116, 60))
_NOSES = ((58.0, 50.0, 54.0), (110.0, 72.0, 64.0), (206.0, 118.0, 116.0))
_COLLARS = ((206, 62, 62), (58, 122, 196), (60, 156, 110), (236, 178, 54))


@dataclass(frozen=True)
class Individual:
    """What stays the same in every picture of one animal.

    Attributes:
      label: 0 for a cat, 1 for a dog. Only ears, eyes, muzzle and whiskers depend on
        it; everything else comes from one distribution.
      coat: Colour of the fur.
      ear: Colour of the ears.
      muzzle: Colour around the mouth.
      iris: Colour of the eyes.
      nose: Colour of the nose.
      collar: Colour of the collar, or None.
      head_marks: The fur's pattern on the head.
      body_marks: The fur's pattern on the body.
      proportions: Named factors around 1: head height, jaw, eyes, eye gap, ears, ear
        lean, muzzle.
      pricked: Whether a dog's ears point up and fold over at the tip.
    """

    label: int
    coat: Colour
    ear: Colour
    muzzle: Colour
    iris: Colour
    nose: Colour
    collar: Colour | None
    head_marks: tuple[Stroke, ...]
    body_marks: tuple[Stroke, ...]
    proportions: dict[str, float]
    pricked: bool


def individual(rng: np.random.Generator, label: int) -> Individual:
    """Returns a new animal; both classes use the random numbers in the same way.

    Args:
      rng: Decides everything but the class.
      label: 0 for a cat, 1 for a dog.
    """
    names = ("height", "jaw", "eyes", "gap", "ears", "lean", "muzzle")
    spreads = np.array([0.07, 0.10, 0.12, 0.10, 0.12, 0.12, 0.10])
    factors = 1 + spreads * rng.uniform(-1, 1, len(names))
    first, other = rng.permutation(len(_FURS))[:2]
    coat, second = (
        tuple(np.clip(_FURS[k] * rng.uniform(0.92, 1.08), 0, 250).tolist())
        for k in (first, other)
    )
    pattern = ("solid", "tabby", "patches", "bicolour", "spots")[rng.integers(5)]
    if pattern == "tabby":
        second = tint(coat, 0.62 if sum(coat) > 270 else 1.35)
    if pattern == "bicolour":
        second = _WHITE if sum(coat) < 600 else second
    head_marks, body_marks = _pattern(rng, pattern, second)
    ear = (coat, second, tint(coat, 0.8))[rng.integers(3)]
    muzzle = (tint(coat, 1.4), tint(coat, 1.75), _WHITE)[rng.integers(3)]
    collar = _COLLARS[rng.integers(len(_COLLARS))]
    return Individual(
        label=label,
        coat=coat,
        ear=ear,
        muzzle=muzzle,
        iris=tint(_IRISES[rng.integers(len(_IRISES))], rng.uniform(0.8, 1.2)),
        nose=tint(_NOSES[rng.integers(len(_NOSES))], rng.uniform(0.8, 1.4)),
        collar=collar if rng.random() < 0.5 else None,
        head_marks=head_marks,
        body_marks=body_marks,
        proportions=dict(zip(names, factors.tolist(), strict=True)),
        pricked=bool(rng.random() < 0.3),
    )


def _pattern(
    rng: np.random.Generator, pattern: str, second: Colour
) -> tuple[tuple[Stroke, ...], tuple[Stroke, ...]]:
    head, body = [], []
    if pattern == "tabby":
        for x in (-0.24, 0, 0.24):
            line = smooth(
                [(1.4 * x, -0.95), (x, -0.62), (0.8 * x, -0.38)], closed=False
            )
            head.append(Stroke(line, second, 0.25, 0.1))
        for side in (-1, 1):
            for y in (0.02, 0.26):
                ends = [(side * 1.15, y - 0.06), (side * 0.72, y + 0.08)]
                head.append(Stroke(np.array(ends), second, 0.2, 0.09))
        for y in np.linspace(1.0, 2.4, 5):
            for side in (-1, 1):
                ends = [(side * 1.4, y - 0.1), (side * 0.5, y + 0.12)]
                body.append(Stroke(np.array(ends), second, -0.1, 0.12))
    if pattern == "patches":
        side = 2 * rng.integers(2) - 1
        x, y = side * rng.uniform(0.4, 0.7), rng.uniform(-0.5, -0.1)
        head.append(Stroke(ellipse(x, y, 0.52, 0.62, side * 0.4), second, 0.2))
        for x, y in ((-0.7 * side, 1.9), (0.5 * side, 1.3)):
            body.append(Stroke(ellipse(x, y, 0.5, 0.4, 0.5), second, -0.1))
    if pattern == "bicolour":
        blaze = [(0, -0.7), (0.16, -0.2), (0.62, 0.5), (0, 1.2), (-0.62, 0.5)]
        blaze = np.array([*blaze, (-0.16, -0.2)]) * (rng.uniform(0.7, 1.2), 1)
        head.append(Stroke(smooth(blaze), second, 0.3))
        body.append(Stroke(ellipse(0, 1.3, 0.5, 0.75), second, 0.0))
    if pattern == "spots":
        for x, y in rng.uniform((-0.95, -0.8), (0.95, 0.7), (10, 2)):
            head.append(Stroke(ellipse(x, y, 0.12, 0.09, 3 * x), second, 0.2))
        for x, y in rng.uniform((-0.9, 0.9), (0.9, 2.6), (10, 2)):
            body.append(Stroke(ellipse(x, y, 0.14, 0.11, 3 * x), second, -0.1))
    return tuple(head), tuple(body)


@dataclass(frozen=True)
class Expression:
    """What an animal does in one picture.

    Attributes:
      lean: Rotation of the body under the head, radians.
      tail: Height of the tail's tip, -1 low to 1 high; its sign is also its side.
      gaze: `(x, y)` shift of the pupils, head units.
      tongue: Whether a dog shows its tongue.
      ears: `(left, right)` turn of the ears, radians.
    """

    lean: float
    tail: float
    gaze: tuple[float, float]
    tongue: bool
    ears: tuple[float, float]


class Figure(NamedTuple):
    """An animal in head units.

    Attributes:
      layers: From the back to the front.
      landmarks: `[5, 3]` as `(x, y, depth)`: left eye, right eye, nose, left ear tip,
        right ear tip; left and right as seen in an upright picture.
    """

    layers: list[Layer]
    landmarks: np.ndarray


def figure(who: Individual, does: Expression) -> Figure:
    """Returns the layers and the landmarks of one animal."""
    ears, tips = [], []
    for side, turn in zip((-1, 1), does.ears, strict=True):
        layers, tip = _ear(who, side, turn)
        ears += layers
        tips.append(tip)
    size = who.proportions
    upper = [(0, -0.82), (0.48, -0.77), (0.86, -0.44), (1.0, 0.04)]
    lower = [(0.84 * size["jaw"], 0.5), (0.44 * size["jaw"], 0.79), (0, 0.87)]
    half = np.array(upper + lower) * (1, size["height"])
    outline = smooth(np.concatenate([half, half[-2:0:-1] * (-1, 1)]))
    head = Layer(Stroke(outline, who.coat, 0.0), who.head_marks, 0.05, "head")
    hanging = who.label == DOG and not who.pricked
    middle = [head, *ears] if hanging else [*ears, head]
    eyes, eye_points = _eyes(who, does)
    face, nose = (_cat_face if who.label == CAT else _dog_face)(who, does)
    return Figure(
        _body(who, does) + middle + face + eyes,
        np.array([*eye_points, nose, *tips]),
    )


def _body(who: Individual, does: Expression) -> list[Layer]:
    turn, neck = rotation(does.lean), np.array([0, 0.5])

    def lean(stroke: Stroke) -> Stroke:
        return stroke._replace(points=(stroke.points - neck) @ turn + neck)

    side, dark = math.copysign(1, does.tail), tint(who.coat, 0.8)
    tail = [(0, 2.4), (0.9, 2.5), (1.4, 1.9), (1.45, 1.5 - 0.5 * abs(does.tail))]
    half = [(0, 0.2), (0.52, 0.4), (0.7, 1.0), (0.98, 1.9), (0.9, 2.7), (0, 2.85)]
    outline = smooth(np.array(half + [(-x, y) for x, y in half[-2:0:-1]]))
    shadow = Stroke(ellipse(0, 0.62, 0.95, 0.5), tint(who.coat, 0.66), -0.1)
    layers = [
        Layer(
            lean(Stroke(smooth(np.array(tail) * (side, 1), False), dark, -0.3, 0.28)),
            edge=0.05,
            part="body",
        ),
        Layer(
            lean(Stroke(outline, who.coat, -0.2)),
            (*map(lean, who.body_marks), lean(shadow)),
            0.05,
            "body",
        ),
    ]
    for x in (-0.36, 0.36):
        leg = smooth([(x, 1.75), (x + 0.2, 2.3), (x, 2.95), (x - 0.2, 2.3)])
        paw = ellipse(x, 2.8, 0.3, 0.2)
        layers.append(Layer(lean(Stroke(leg, tint(who.coat, 0.93), -0.1)), part="body"))
        layers.append(Layer(lean(Stroke(paw, who.muzzle, 0.0)), (), 0.04, "body"))
    if who.collar is not None:
        band = smooth([(-0.56, 0.78), (0, 1.08), (0.56, 0.78)], closed=False)
        layers.append(Layer(lean(Stroke(band, who.collar, 0.0, 0.16))))
        tag = Stroke(ellipse(0, 1.17, 0.13, 0.13), (250, 214, 96), 0.1)
        layers.append(Layer(lean(tag), edge=0.03))
    return layers


def _ear(
    who: Individual, side: int, turn: float
) -> tuple[list[Layer], tuple[float, float, float]]:
    size = who.proportions["ears"]
    turn = turn + 1.2 * (who.proportions["lean"] - 1)
    pivot = np.array([0.62, -0.52])
    matrix = size * rotation(turn) * np.array([side, 1])

    def place(knots: list | np.ndarray) -> np.ndarray:
        return (np.array(knots) - pivot) @ matrix + pivot * (side, 1)

    def layer(points: np.ndarray, colour: Colour, depth: float, marks=()) -> Layer:
        return Layer(Stroke(points, colour, depth), marks, 0.05, "ear")

    if who.label == CAT:
        point = (0.88, -1.42)
        rim = np.array([(0.2, -0.5), (0.3, -0.88), (0.6, -1.22), point, point])
        rim = np.concatenate([rim, [(0.98, -0.9), (0.98, -0.4), (0.6, -0.2)]])
        inside = tuple(0.4 * a + 0.5 * b for a, b in zip(who.ear, _PINK, strict=True))
        inner = (rim - (0.68, -0.66)) * (0.58, 0.66) + (0.69, -0.66)
        marks = (Stroke(place(smooth(inner)), inside, 0.05),)
        layers = [layer(place(smooth(rim)), who.ear, 0.0, marks)]
        tip, depth = (0.86, -1.31), 0.0
    elif who.pricked:
        rim = [(0.2, -0.5), (0.32, -0.98), (0.62, -1.2), (0.96, -1.08)]
        rim += [(1.02, -0.7), (0.9, -0.3), (0.6, -0.3)]
        flap = [(0.4, -1.1), (0.66, -1.24), (1.0, -1.12), (1.2, -0.8)]
        flap += [(1.14, -0.62), (0.96, -0.64), (0.7, -0.84)]
        layers = [
            layer(place(smooth(rim)), tint(who.ear, 0.9), 0.0),
            layer(place(smooth(flap)), who.ear, 0.05),
        ]
        tip, depth = (1.13, -0.7), 0.05
    else:
        rim = [(0.36, -0.7), (0.62, -0.9), (0.98, -0.74), (1.24, -0.2), (1.3, 0.3)]
        rim += [(1.12, 0.56), (0.9, 0.44), (0.84, 0.0), (0.68, -0.4)]
        shade = [(0.36, -0.66), (0.84, -0.5), (0.96, 0.1), (0.94, 0.6), (0.7, 0.0)]
        marks = (Stroke(place(smooth(shade)), tint(who.ear, 0.9), 0.1),)
        layers = [layer(place(smooth(rim)), who.ear, 0.1, marks)]
        tip, depth = (1.12, 0.46), 0.1
    return layers, (*place([tip])[0], depth)


def _eyes(
    who: Individual, does: Expression
) -> tuple[list[Layer], list[tuple[float, float, float]]]:
    layers, points = [], []
    size, depth = who.proportions["eyes"], 0.5
    gaze_x, gaze_y = does.gaze
    for side in (-1, 1):
        x, y = side * 0.42 * who.proportions["gap"], -0.1
        points.append((x, y, depth))
        if who.label == CAT:
            lid = np.sign(CIRCLE) * np.abs(CIRCLE) ** (1.0, 1.35)
            lid = lid * (0.28 * size, 0.21 * size) @ rotation(-0.3 * side) + (x, y)
            pupil = ellipse(x + gaze_x, y + gaze_y, 0.065 * size, 0.19 * size)
        else:
            lid = ellipse(x, y, 0.21 * size, 0.22 * size)
            pupil = ellipse(x + gaze_x, y + gaze_y, 0.12 * size, 0.125 * size)
        shine = ellipse(x + 0.07 * size, y - 0.08 * size, 0.055, 0.055)
        marks = (Stroke(pupil, _DARK, depth), Stroke(shine, (255, 255, 255), depth))
        layers.append(Layer(Stroke(lid, who.iris, depth), marks, 0.06))
    return layers, points


def _cat_face(
    who: Individual, does: Expression
) -> tuple[list[Layer], tuple[float, float, float]]:
    size, depth = who.proportions["muzzle"], 0.6
    line = tint(who.coat, 0.35) if sum(who.muzzle) > 330 else tint(who.coat, 0.25)
    layers = [Layer(Stroke(ellipse(0, 0.62, 0.2 * size, 0.14), who.muzzle, depth))]
    for side in (-1, 1):
        pad = ellipse(side * 0.18 * size, 0.46, 0.25 * size, 0.19 * size, side * 0.2)
        layers.append(Layer(Stroke(pad, who.muzzle, depth)))
    for side in (-1, 1):
        mouth = [(0, 0.36), (0, 0.47), (side * 0.12, 0.56), (side * 0.27, 0.5)]
        layers.append(Layer(Stroke(smooth(mouth, False), line, depth, 0.04)))
    nose = [(-0.14, 0.25), (0, 0.24), (0.14, 0.25), (0.09, 0.33), (0, 0.4)]
    nose = np.array([*nose, (-0.09, 0.33)]) * (size, 1)
    layers.append(Layer(Stroke(smooth(nose), who.nose, depth + 0.05), edge=0.03))
    whisker = tint(who.coat, 1.7 if sum(who.coat) < 500 else 0.4)
    for side in (-1, 1):
        for y in (-0.12, 0.04, 0.2):
            hair = [(side * 0.3, 0.46 + 0.4 * y), (side * 0.8, 0.42 + y)]
            hair = smooth([*hair, (side * 1.28, 0.46 + 1.6 * y)], closed=False)
            layers.append(Layer(Stroke(hair, whisker, depth, 0.03)))
    return layers, (0.0, 0.31, depth + 0.05)


def _dog_face(
    who: Individual, does: Expression
) -> tuple[list[Layer], tuple[float, float, float]]:
    size, depth = who.proportions["muzzle"], 0.8
    line = tint(who.coat, 0.35) if sum(who.muzzle) > 330 else tint(who.coat, 0.25)
    layers = []
    if does.tongue:
        tongue = smooth([(-0.14, 0.6), (0.14, 0.6), (0.13, 0.84), (0, 0.93)])
        tongue = Stroke(tongue, (232, 112, 118), depth - 0.1)
        layers.append(Layer(tongue, (), 0.03, "body"))
    muzzle = [(0, 0.0), (0.26, 0.1), (0.46, 0.42), (0.34, 0.7), (0, 0.68)]
    muzzle = np.array(muzzle + [(-x, y) for x, y in muzzle[-2:0:-1]]) * (size, 1)
    muzzle = Stroke(smooth(muzzle), who.muzzle, depth - 0.1)
    layers.append(Layer(muzzle, part="head"))
    for side in (-1, 1):
        mouth = [(0, 0.36), (0, 0.54), (side * 0.18, 0.66), (side * 0.38, 0.58)]
        layers.append(Layer(Stroke(smooth(mouth, False), line, depth, 0.045)))
        for x, y in ((0.22, 0.42), (0.32, 0.48)):
            dot = ellipse(side * x * size, y, 0.022, 0.022)
            layers.append(Layer(Stroke(dot, line, depth)))
    nose = [(0, 0.06), (0.2, 0.09), (0.23, 0.22), (0.08, 0.38), (-0.08, 0.38)]
    nose = np.array([*nose, (-0.23, 0.22), (-0.2, 0.09)]) * (size, 1)
    shine = Stroke(ellipse(0.07, 0.14, 0.09, 0.035), tint(who.nose, 1.5), depth + 0.05)
    layers.append(Layer(Stroke(smooth(nose), who.nose, depth + 0.05), (shine,), 0.03))
    return layers, (0.0, 0.22, depth + 0.05)
