"""Built-in synthetic drawings of cats and dogs: no files and no download.

The classes differ only in ears, eyes, muzzle and whiskers. Fur, pose, background and
light come from one distribution, so colour and brightness do not reveal the class.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from fpn_jax.data.drawing import animals, strokes
from fpn_jax.data.drawing.strokes import Colour, Pose, rotation, tint
from fpn_jax.data.records import FIELDS, SPLITS, Record, SourceInfo
from fpn_jax.errors import at_least, unknown

CLASSES = ("cat", "dog")

INFO = SourceInfo(
    classes=CLASSES,
    fields=tuple(FIELDS),
    landmark_names=(
        "left eye",
        "right eye",
        "nose",
        "left ear tip",
        "right ear tip",
    ),
    # Left and right are the viewer's, so a mirrored image swaps them.
    mirrored=(1, 0, 2, 4, 3),
    mask_classes=("background", "animal"),
)
"""Every field is annotated, and exact."""

RECORDS_PER_INDIVIDUAL = 4

_GRID = 48
"""Side of the coarse fields of light and texture, which are smooth."""


@dataclass(frozen=True)
class DrawnSource:
    """Built-in synthetic drawings of cats and dogs; needs no files.

    Attributes:
      split: One of train, validate, test; no individual is in two of them.
      image_size: Side of the images, pixels.
      train_records: Number of records of the training split.
      validate_records: Number of records of the validation split.
      test_records: Number of records of the test split.
      seed: Another seed is another data set.

    Raises:
      InputError: The split is unknown, or a number is out of range.
    """

    split: str
    image_size: int
    train_records: int = 28800
    validate_records: int = 1000
    test_records: int = 1000
    seed: int = 0

    info = INFO

    def __post_init__(self):
        _check(self.seed, self.split, self.image_size)
        name = f"{self.split}_records"
        at_least(name, getattr(self, name), 1)

    def __len__(self) -> int:
        return getattr(self, f"{self.split}_records")

    def __getitem__(self, index: int) -> Record:
        return draw(self.seed, self.split, self._checked(index), self.image_size)

    def id(self, index: int) -> str:
        """Returns the record's name, such as `"drawn/train/17"`.

        Raises:
          IndexError: There is no such record.
        """
        return f"drawn/{self.split}/{self._checked(index)}"

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(
                f"record {index} is out of range; drawn/{self.split} has {len(self)}"
            )
        return int(index)


def draw(seed: int, split: str, index: int, image_size: int) -> Record:
    """Returns one record, a pure function of its arguments.

    The label is the parity of the index's binary ones (the Thue-Morse sequence), so any
    prefix is balanced, and so is every second, fourth, eighth … record of it.

    Args:
      seed: Another seed is another data set; not negative.
      split: One of train, validate, test.
      index: The record's number in the split; not negative.
      image_size: Side of the image, pixels. The picture is the same at every size.

    Returns:
      `image` uint8 `[S, S, 3]`; `label` int, 0 cat, 1 dog; `mask` uint8 `[S, S]`, 1
      on the visible part of the animal; `boxes` float32 `[1, 4]`, the part of the head
      with its ears that is inside of the image; `box_labels` int32 `[1]`; `landmarks`
      float32 `[5, 3]`: left eye, right eye, nose, left ear tip, right ear tip, where
      left is the viewer's left, and `visible` is 0 behind an occluder or outside of the
      image; `identity` int32, equal in four records and never in two splits.

    Raises:
      InputError: The split is unknown, or a number is out of range.
      IndexError: The index is negative.
    """
    _check(seed, split, image_size)
    if index < 0:
        raise IndexError(f"record {index} is out of range; the first one is 0")
    label = index.bit_count() % 2
    # Eight consecutive records show one cat and one dog, four times each.
    member = 2 * (index // (2 * RECORDS_PER_INDIVIDUAL)) + label
    number = SPLITS.index(split)
    who = animals.individual(np.random.default_rng([seed, number, member, 0]), label)
    rng = np.random.default_rng([seed, number, index, 1])
    pose, does = _pose(rng)
    figure = animals.figure(who, does)
    image, mask, covered = _scene(rng, who.coat, figure, pose, image_size)
    return {
        "image": image,
        "label": label,
        "mask": mask,
        "boxes": _head_box(figure, pose, image_size)[None],
        "box_labels": np.array([label], np.int32),
        "landmarks": _landmarks(figure, pose, covered, image_size),
        "identity": np.int32(len(SPLITS) * member + number),
    }


def _check(seed: int, split: str, image_size: int) -> None:
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    at_least("seed", seed, 0)
    at_least("image_size", image_size, 8)


def _pose(rng: np.random.Generator) -> tuple[Pose, animals.Expression]:
    scale = rng.uniform(0.18, 0.39)
    margin, room_for_ears = 0.9 * scale + 0.02, 1.2 * scale
    roll = math.radians(min(max(rng.normal(0, 14), -35), 35))
    pose = Pose(
        centre=(
            rng.uniform(margin, 1 - margin),
            rng.uniform(room_for_ears, 1 - 0.9 * margin),
        ),
        scale=scale,
        roll=roll,
        yaw=math.radians(rng.uniform(-24, 24)),
        pitch=math.radians(rng.uniform(-10, 10)),
        stretch=rng.uniform(0.94, 1.06),
        perspective=(rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)),
    )
    does = animals.Expression(
        lean=-rng.uniform(0.5, 0.9) * roll,
        tail=rng.uniform(-1, 1),
        gaze=(rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04)),
        tongue=rng.random() < 0.4,
        ears=(rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)),
    )
    return pose, does


def _scene(
    rng: np.random.Generator,
    coat: Colour,
    figure: animals.Figure,
    pose: Pose,
    size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the image, the mask and, at twice their size, the occluded pixels."""
    canvas = 2 * size
    placed = strokes.place(figure.layers, pose, canvas)
    animal = strokes.silhouette(placed, canvas)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([math.cos(angle), math.sin(angle)])
    soft = _soft(animal)
    palette = _palette(rng)
    image = _background(rng, canvas, palette, coat)
    image = _lit(image, _drop_shadow(soft, light))
    strokes.paint(image, placed)
    cv2.copyTo(_lit(image, _relief(soft, light, rng)), animal, image)
    covered = _occlude(rng, image, palette[9])
    animal[covered > 0] = 0
    mask = (_shrunk(animal, size) > 127).astype(np.uint8)
    return _photograph(rng, image, size, light), mask, covered


def _head_box(figure: animals.Figure, pose: Pose, size: int) -> np.ndarray:
    head = [layer.base for layer in figure.layers if layer.part in ("head", "ear")]
    points = strokes.project(head, pose)
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return (np.clip(box, 0, 1) * size).astype(np.float32)


def _landmarks(
    figure: animals.Figure, pose: Pose, covered: np.ndarray, size: int
) -> np.ndarray:
    points = pose.project(figure.landmarks[:, :2], figure.landmarks[:, 2])
    inside = ((points >= 0) & (points < 1)).all(axis=1)
    column, row = np.clip(points * len(covered), 0, len(covered) - 1).astype(int).T
    visible = inside & (covered[row, column] == 0)
    return np.column_stack([points * size, visible]).astype(np.float32)


def _palette(rng: np.random.Generator) -> list[Colour]:
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


def _background(
    rng: np.random.Generator, size: int, palette: list[Colour], coat: Colour
) -> np.ndarray:
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
    return _lit(image, _texture(rng))


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
    field = np.ones((_GRID, _GRID), np.float32)
    strength = np.float32(rng.uniform(0.01, 0.06))
    for cells in (4, 8, 16, 32):
        octave = rng.standard_normal((cells, cells), np.float32)
        field += strength * cv2.resize(octave, (_GRID, _GRID))
    return field


def _soft(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(_shrunk(mask, _GRID).astype(np.float32) / 255, (0, 0), 2.5)


def _drop_shadow(soft: np.ndarray, light: np.ndarray) -> np.ndarray:
    shift = np.array([[1, 0, -3 * light[0]], [0, 1, -3 * light[1]]], np.float32)
    return 1 - 0.4 * cv2.warpAffine(soft, shift, (_GRID, _GRID))


def _relief(
    soft: np.ndarray, light: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the animal's brightness: its soft mask as a hill, lit from one side."""
    slope_x, slope_y = cv2.Sobel(soft, -1, 1, 0), cv2.Sobel(soft, -1, 0, 1)
    hill = np.float32(light[0]) * slope_x + np.float32(light[1]) * slope_y
    grain = rng.standard_normal((_GRID, _GRID), np.float32)
    return 1.04 - np.float32(rng.uniform(0.2, 0.55)) * hill + 0.03 * grain


def _lit(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Returns the image times a field `[G, G]` of factors around 1, resized to it."""
    field = cv2.resize((field * 128).clip(0, 255).astype(np.uint8), image.shape[1::-1])
    field = cv2.cvtColor(field, cv2.COLOR_GRAY2RGB)
    return cv2.multiply(image, field, scale=1 / 128)


def _occlude(rng: np.random.Generator, image: np.ndarray, colour: Colour) -> np.ndarray:
    """Paints the occluders; returns uint8 `[C, C]`, 255 on them."""
    covered = np.zeros(image.shape[:2], np.uint8)
    for shape in _occluders(rng):
        _fill(image, shape, colour)
        pixels = strokes.to_fixed(shape, len(covered))
        cv2.fillPoly(covered, [pixels], 255, shift=strokes.SHIFT)
    return covered


def _occluders(rng: np.random.Generator) -> list[np.ndarray]:
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


def _photograph(
    rng: np.random.Generator, image: np.ndarray, size: int, light: np.ndarray
) -> np.ndarray:
    """Returns the image at its size, with the light's fall-off, blur and noise."""
    gains = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    corners = np.array([[(-1, -1), (1, -1)], [(-1, 1), (1, 1)]]) @ light
    field = (1 + rng.uniform(0, 0.16) * corners[..., None]) * gains * 128
    field = cv2.resize(field.clip(0, 255).astype(np.uint8), (size, size))
    image = cv2.multiply(_shrunk(image, size), field, scale=1 / 128)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), size * rng.uniform(0.004, 0.009))
    strength = rng.uniform(0, 0.1)
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.addWeighted(image, 1, noise, strength, -127.5 * strength)


def _shrunk(image: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
