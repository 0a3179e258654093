"""Built-in synthetic drawings of cats and dogs: no files and no download.

The classes differ only in ears, eyes, muzzle and whiskers. Fur, pose, background and
light come from one distribution, so colour and brightness do not reveal the class.
"""

import dataclasses
import math
from dataclasses import dataclass

import cv2
import numpy as np

from fpn_jax.data.drawing import animals, scenery, strokes
from fpn_jax.data.drawing.strokes import Colour, Pose
from fpn_jax.data.records import FIELDS, SPLITS, Record, SourceInfo
from fpn_jax.errors import at_least, unknown, within

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
      empty_fraction: Share of the records that show no animal, in [0, 1). Records then
        have no label and no identity.

    Raises:
      InputError: The split is unknown, or a number is out of range.
    """

    split: str
    image_size: int
    train_records: int = 28800
    validate_records: int = 1000
    test_records: int = 1000
    seed: int = 0
    empty_fraction: float = 0.0

    def __post_init__(self):
        _check(self.seed, self.split, self.image_size)
        name = f"{self.split}_records"
        at_least(name, getattr(self, name), 1)
        within("empty_fraction", self.empty_fraction, 0, 1, open_high=True)

    @property
    def info(self) -> SourceInfo:
        """Classes and fields."""
        if not self.empty_fraction:
            return INFO
        fields = tuple(f for f in INFO.fields if f not in ("label", "identity"))
        return dataclasses.replace(INFO, fields=fields)

    def __len__(self) -> int:
        return getattr(self, f"{self.split}_records")

    def __getitem__(self, index: int) -> Record:
        record = draw(
            self.seed,
            self.split,
            self._checked(index),
            self.image_size,
            empty=self._is_empty(index),
        )
        return {key: record[key] for key in ("image", *self.info.fields)}

    def _is_empty(self, index: int) -> bool:
        # A number of its own, so that the other records do not depend on this one.
        chosen = np.random.default_rng([self.seed, SPLITS.index(self.split), index, 2])
        return bool(self.empty_fraction) and chosen.random() < self.empty_fraction

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


def draw(
    seed: int, split: str, index: int, image_size: int, *, empty: bool = False
) -> Record:
    """Returns one record, a pure function of its arguments.

    The label is the parity of the index's binary ones (the Thue-Morse sequence), so any
    prefix is balanced, and so is every second, fourth, eighth … record of it.

    Args:
      seed: Another seed is another data set; not negative.
      split: One of train, validate, test.
      index: The record's number in the split; not negative.
      image_size: Side of the image, pixels. The picture is the same at every size.
      empty: Whether the animal is omitted. There is no box then, no landmark is
        visible, and the mask is background.

    Returns:
      `image` uint8 `[S, S, 3]`; `label` int, 0 cat, 1 dog; `mask` uint8 `[S, S]`, 1
      on the visible part of the animal; `boxes` float32 `[1, 4]`, the part of the head
      with its ears that is inside of the image; `box_labels`, `box_crowd` and
      `box_identities` int32 `[1]`; `landmarks` float32 `[5, 3]`: left eye, right eye,
      nose, left ear tip, right ear tip, where left is the viewer's left, and `visible`
      is 0 behind an occluder or outside of the image; `identity` int32, equal in four
      records and never in two splits.

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
    layers = [] if empty else figure.layers
    identity = len(SPLITS) * member + number
    image, mask, covered = _scene(rng, who.coat, layers, pose, image_size)
    landmarks = _landmarks(figure, pose, covered, image_size)
    landmarks[:, 2] *= not empty
    return {
        "image": image,
        "label": label,
        "mask": mask,
        "boxes": _head_box(figure, pose, image_size)[None][: not empty],
        "box_labels": np.array([label], np.int32)[: not empty],
        "box_crowd": np.zeros(1 - empty, np.int32),
        "box_identities": np.array([identity], np.int32)[: not empty],
        "landmarks": landmarks,
        "identity": np.int32(identity),
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
    layers: list[strokes.Layer],
    pose: Pose,
    size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the image, the mask and, at twice their size, the occluded pixels."""
    canvas = 2 * size
    placed = strokes.place(layers, pose, canvas) if layers else []
    animal = strokes.silhouette(placed, canvas)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([math.cos(angle), math.sin(angle)])
    soft = _soft(animal)
    palette = scenery.palette(rng)
    image = scenery.background(rng, canvas, palette, coat)
    image = scenery.lit(image, _drop_shadow(soft, light))
    strokes.paint(image, placed)
    cv2.copyTo(scenery.lit(image, _relief(soft, light, rng)), animal, image)
    covered = scenery.occlude(rng, image, palette[9])
    animal[covered > 0] = 0
    mask = (scenery.shrunk(animal, size) > 127).astype(np.uint8)
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


def _soft(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(
        scenery.shrunk(mask, scenery.GRID).astype(np.float32) / 255, (0, 0), 2.5
    )


def _drop_shadow(soft: np.ndarray, light: np.ndarray) -> np.ndarray:
    shift = np.array([[1, 0, -3 * light[0]], [0, 1, -3 * light[1]]], np.float32)
    return 1 - 0.4 * cv2.warpAffine(soft, shift, (scenery.GRID, scenery.GRID))


def _relief(
    soft: np.ndarray, light: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the animal's brightness: its soft mask as a hill, lit from one side."""
    slope_x, slope_y = cv2.Sobel(soft, -1, 1, 0), cv2.Sobel(soft, -1, 0, 1)
    hill = np.float32(light[0]) * slope_x + np.float32(light[1]) * slope_y
    grain = rng.standard_normal((scenery.GRID, scenery.GRID), np.float32)
    return 1.04 - np.float32(rng.uniform(0.2, 0.55)) * hill + 0.03 * grain


def _photograph(
    rng: np.random.Generator, image: np.ndarray, size: int, light: np.ndarray
) -> np.ndarray:
    """Returns the image at its size, with the light's fall-off, blur and noise."""
    gains = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    corners = np.array([[(-1, -1), (1, -1)], [(-1, 1), (1, 1)]]) @ light
    field = (1 + rng.uniform(0, 0.16) * corners[..., None]) * gains * 128
    field = cv2.resize(field.clip(0, 255).astype(np.uint8), (size, size))
    image = cv2.multiply(scenery.shrunk(image, size), field, scale=1 / 128)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), size * rng.uniform(0.004, 0.009))
    strength = rng.uniform(0, 0.1)
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.addWeighted(image, 1, noise, strength, -127.5 * strength)
