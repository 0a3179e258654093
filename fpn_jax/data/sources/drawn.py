"""Built-in synthetic drawings of cats and dogs: no files and no download.

The classes differ only in ears, eyes, muzzle and whiskers. Fur, pose, background and
light come from one distribution, so colour and brightness do not reveal the class.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from fpn_jax.data.drawing import animals, composition, scenery, strokes
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
        "boxes": composition.head_box(figure, pose, image_size)[None][: not empty],
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
    low, high = (margin, room_for_ears), (1 - margin, 1 - 0.9 * margin)
    pose = composition.pose(rng, scale, low, high)
    return pose, composition.expression(rng, pose.roll)


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
    light = composition.direction(rng)
    palette = scenery.palette(rng)
    image = scenery.background(rng, canvas, palette, coat)
    image = composition.with_animal(rng, image, placed, animal, light)
    shapes = scenery.occluders(rng)
    covered = scenery.occlude(image, shapes, palette[9])
    animal[covered > 0] = 0
    mask = (scenery.shrunk(animal, size) > 127).astype(np.uint8)
    return composition.photograph(rng, image, size, light), mask, covered


def _landmarks(
    figure: animals.Figure, pose: Pose, covered: np.ndarray, size: int
) -> np.ndarray:
    points = pose.project(figure.landmarks[:, :2], figure.landmarks[:, 2])
    inside = ((points >= 0) & (points < 1)).all(axis=1)
    column, row = np.clip(points * len(covered), 0, len(covered) - 1).astype(int).T
    visible = inside & (covered[row, column] == 0)
    return np.column_stack([points * size, visible]).astype(np.float32)
