"""Built-in drawings of several cats and dogs in one picture, for detection."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from fpn_jax.data.drawing import animals, composition, scenery, strokes
from fpn_jax.data.drawing.strokes import Pose
from fpn_jax.data.records import SPLITS, Record, SourceInfo
from fpn_jax.errors import InputError, at_least, unknown, within

INFO = SourceInfo(
    classes=("cat", "dog"),
    fields=("mask", "boxes", "box_labels", "box_crowd", "box_identities"),
    mask_classes=("background", "cat", "dog"),
)
"""Every field is annotated, and exact."""

INDIVIDUALS = 4000
"""Number of individuals of a split."""
GREATEST_HIDDEN = 0.35
"""Share of a head that nearer animals and occluders may hide."""
LEAST_INSIDE = 0.75
"""Share of a head's box that is inside of the image, at least."""

_TRIES = 12
"""How often the place of an animal is drawn before the animal is omitted."""
_COARSE = 96
"""Side of the picture in which hidden shares are measured, pixels; for heads of the
default sizes they are exact to about 0.03."""
_HEAD_WIDTH = 2.2
"""Width of a typical head box over its pose's scale."""


@dataclass(frozen=True)
class DrawnScenesSource:
    """Drawn pictures with none to `max_animals` cats and dogs; needs no files.

    The number of animals is uniform, every animal is a cat or a dog with equal
    probability, and the logarithm of its size is uniform, so size, place and colour do
    not reveal the class. Larger animals are nearer and cover smaller ones. At most
    `GREATEST_HIDDEN` of a head is hidden: an animal whose head is hidden more is drawn
    at another place, and omitted if none is found.

    At least `LEAST_INSIDE` of the box of a head is inside of the image. No individual
    is twice in one scene: the second animal is omitted.

    Attributes:
      split: One of train, validate, test; no individual is in two of them.
      image_size: Side of the images, pixels.
      train_records: Number of records of the training split.
      validate_records: Number of records of the validation split.
      test_records: Number of records of the test split.
      max_animals: Greatest number of animals, 1 or more.
      sizes: Least and greatest width of a head, as fractions of the image side, above 0
        and at most 0.7.
      seed: Another seed is another data set.

    Raises:
      InputError: The split is unknown, or a number is out of range.
    """

    split: str
    image_size: int
    train_records: int = 32000
    validate_records: int = 500
    test_records: int = 500
    max_animals: int = 4
    sizes: tuple[float, float] = (0.15, 0.6)
    seed: int = 0

    def __post_init__(self):
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        at_least("seed", self.seed, 0, whole=True)
        at_least("image_size", self.image_size, 8, whole=True)
        at_least("max_animals", self.max_animals, 1, whole=True)
        name = f"{self.split}_records"
        at_least(name, getattr(self, name), 1, whole=True)
        if len(self.sizes) != 2:
            raise InputError(f"sizes are {self.sizes!r}; give the least and greatest")
        within("the greatest of sizes", self.sizes[1], 0, 0.7, open_low=True)
        within("the least of sizes", self.sizes[0], 0, self.sizes[1], open_low=True)

    @property
    def info(self) -> SourceInfo:
        """Classes and fields."""
        return INFO

    def __len__(self) -> int:
        return getattr(self, f"{self.split}_records")

    def __getitem__(self, index: int) -> Record:
        """Returns one scene, a pure function of the attributes and the index."""
        number = SPLITS.index(self.split)
        rng = np.random.default_rng([self.seed, number, self._checked(index), 3])
        shapes = scenery.occluders(rng)
        found = self._animals(rng, number, scenery.covered(shapes, _COARSE) > 0)
        image, mask = _drawn(rng, found, shapes, self.image_size)
        boxes = [composition.head_box(a.figure, a.pose, self.image_size) for a in found]
        return {
            "image": image,
            "mask": mask,
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "box_labels": np.array([a.who.label for a in found], np.int32),
            "box_crowd": np.zeros(len(found), np.int32),
            "box_identities": np.array([a.identity for a in found], np.int32),
        }

    def id(self, index: int) -> str:
        """Returns the record's name, such as `"drawn_scenes/train/17"`.

        Raises:
          IndexError: There is no such record.
        """
        return f"drawn_scenes/{self.split}/{self._checked(index)}"

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(
                f"record {index} is out of range; drawn_scenes/{self.split} has "
                f"{len(self)}"
            )
        return int(index)

    def _animals(
        self, rng: np.random.Generator, split: int, hidden: np.ndarray
    ) -> list["_Animal"]:
        """Returns the animals, the nearest one first.

        Args:
          rng: Source of the draws.
          split: Number of the split.
          hidden: bool `[_COARSE, _COARSE]`, what the occluders hide.
        """
        count = int(rng.integers(self.max_animals + 1))
        low, high = np.log(self.sizes)
        widths = np.sort(np.exp(rng.uniform(low, high, count)))[::-1]
        found = []
        for width in widths.tolist():
            scale = width / _HEAD_WIDTH
            label = int(rng.integers(2))
            member = 2 * int(rng.integers(INDIVIDUALS // 2)) + label
            identity = len(SPLITS) * member + split
            if any(animal.identity == identity for animal in found):
                continue
            who = animals.individual(
                np.random.default_rng([self.seed, split, member, 0]), label
            )
            for _ in range(_TRIES):
                low, high = (0.9 * scale, 1.2 * scale), (1 - 0.9 * scale,) * 2
                pose = composition.pose(rng, scale, low, high)
                figure = animals.figure(who, composition.expression(rng, pose.roll))
                head = [a for a in figure.layers if a.part in ("head", "ear")]
                place = _silhouette(head, pose)
                seen = (place & hidden).sum() <= GREATEST_HIDDEN * place.sum()
                if seen and _share_inside(figure, pose) >= LEAST_INSIDE:
                    found.append(_Animal(who, figure, pose, identity))
                    hidden = hidden | _silhouette(figure.layers, pose)
                    break
        return found


class _Animal(NamedTuple):
    """An animal in its place."""

    who: animals.Individual
    figure: animals.Figure
    pose: Pose
    identity: int


def _share_inside(figure: animals.Figure, pose: Pose) -> float:
    """Returns the share of the head's box that is inside of the image."""
    box = composition.head_extent(figure, pose)
    inside = np.clip(box, 0, 1)
    return float(np.prod(inside[2:] - inside[:2]) / np.prod(box[2:] - box[:2]))


def _silhouette(layers: list[strokes.Layer], pose: Pose) -> np.ndarray:
    """Returns where layers are, bool `[_COARSE, _COARSE]`."""
    return strokes.silhouette(strokes.place(layers, pose, _COARSE), _COARSE) > 0


def _drawn(
    rng: np.random.Generator,
    found: list[_Animal],
    shapes: list[np.ndarray],
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image and the class map; the first animal is the nearest one."""
    canvas = 2 * size
    light, palette = composition.direction(rng), scenery.palette(rng)
    coats = [animal.who.coat for animal in found] or [(128.0, 128.0, 128.0)]
    coat = tuple(np.mean(coats, axis=0).tolist())
    image = scenery.background(rng, canvas, palette, coat)
    classes = np.zeros((canvas, canvas), np.uint8)
    for animal in found[::-1]:
        placed = strokes.place(animal.figure.layers, animal.pose, canvas)
        shape = strokes.silhouette(placed, canvas)
        image = composition.with_animal(rng, image, placed, shape, light)
        classes[shape > 0] = 1 + animal.who.label
    classes[scenery.occlude(image, shapes, palette[9]) > 0] = 0
    shares = [
        scenery.shrunk(cv2.compare(classes, value, cv2.CMP_EQ), size)
        for value in range(len(INFO.mask_classes))
    ]
    mask = np.argmax(shares, axis=0).astype(np.uint8)
    return composition.photograph(rng, image, size, light), mask
