"""Random changes of the training records, and the stacks for training and evaluation.

An augmentation takes a record and a generator and returns a new record in which every
field is moved with the image. It keeps no state, so threads may share it and workers
may pickle it.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fpn_jax.data import colours, movements
from fpn_jax.data.colours import ColorJitter
from fpn_jax.data.crops import (
    GeometricTransform,
    HorizontalFlip,
    RandomResizedCrop,
    ResizeAndCenterCrop,
    check_interval,
    check_whole,
    sample_box,
)
from fpn_jax.data.pictures import Picture, moved_record
from fpn_jax.data.records import Record
from fpn_jax.errors import within

ColourTransform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""A random change of the colours of an image uint8 `[H, W, 3]`; no pixel moves."""


class Operation(NamedTuple):
    """One operation of `RandAugment`: either it recolours or it moves an image.

    Attributes:
      strongest: The amount at magnitude 10; it grows linearly from 0.
      signed: Whether half of the amounts are negative.
      recolour: Image and amount → image. The amount 0 changes nothing, except for
        operations without an amount.
      move: Size of the image and amount → movement.
    """

    strongest: float
    signed: bool
    recolour: Callable[[np.ndarray, float], np.ndarray] | None = None
    move: Callable[[movements.Size, float], movements.Step] | None = None

    def apply(
        self, image: np.ndarray, amount: float
    ) -> tuple[np.ndarray, tuple[movements.Step, ...]]:
        """Returns the image after the operation, and the movement if there is one."""
        if self.move is None:
            return self.recolour(image, amount), ()
        step = self.move(image.shape[:2], amount)
        return step.image(image), (step,)


def _factor(adjust: Callable[[np.ndarray, float], np.ndarray]) -> Operation:
    """Returns the operation whose factor is 1 + amount."""
    return Operation(0.9, True, lambda image, amount: adjust(image, 1 + amount))


def _fixed(change: Callable[[np.ndarray], np.ndarray]) -> Operation:
    """Returns an operation that has no amount."""
    return Operation(0.0, False, lambda image, _: change(image))


OPERATIONS = {
    "identity": _fixed(lambda image: image),
    "auto_contrast": Operation(
        0.0, False, lambda image, _: colours.auto_contrast(image)
    ),
    "equalize": Operation(0.0, False, lambda image, _: colours.equalize(image)),
    # Degrees, counterclockwise.
    "rotate": Operation(30.0, True, move=movements.rotate),
    # Levels from 256 - amount upwards are inverted.
    "solarize": Operation(256.0, False, colours.solarize),
    "color": _factor(colours.adjust_saturation),
    # Lowest bits that are cleared.
    "posterize": Operation(4.0, False, colours.posterize),
    "contrast": _factor(colours.adjust_contrast),
    "brightness": _factor(colours.adjust_brightness),
    "sharpness": _factor(colours.adjust_sharpness),
    # Pixels along one axis per pixel along the other.
    "shear_x": Operation(0.3, True, move=lambda size, s: movements.shear(size, x=s)),
    "shear_y": Operation(0.3, True, move=lambda size, s: movements.shear(size, y=s)),
    # Share of the image's width or height.
    "translate_x": Operation(
        0.45, True, move=lambda size, t: movements.translate(size, t, 0)
    ),
    "translate_y": Operation(
        0.45, True, move=lambda size, t: movements.translate(size, 0, t)
    ),
}
"""The fourteen operations of the paper with their greatest strengths."""

_DRAWN = tuple(OPERATIONS.values())


@dataclasses.dataclass(frozen=True)
class RandomRotation(GeometricTransform):
    """Turns the image around its middle by a random angle.

    The size stays; corners that leave it are lost, and the area outside of the image is
    grey 128.

    Attributes:
      degrees: Greatest angle to either side, in [0, 180]; angles are uniform.
    """

    degrees: float

    def __post_init__(self):
        within("RandomRotation.degrees", self.degrees, 0, 180)

    def move(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Returns the turned picture."""
        angle = rng.uniform(-self.degrees, self.degrees)
        return picture.moved(movements.rotate(picture.size, angle))


@dataclasses.dataclass(frozen=True)
class RandAugment(GeometricTransform):
    """Applies a few operations out of fourteen, each equally likely, one by one.

    "RandAugment: Practical automated data augmentation with a reduced search space"
    (arXiv 1909.13719). `OPERATIONS` lists their strengths; the area outside of the
    image is grey 128.

    Attributes:
      num_layers: Operations per image, 0 or more.
      magnitude: Strength of all of them, in [0, 10].
    """

    num_layers: int = 2
    magnitude: float = 9.0

    def __post_init__(self):
        check_whole("RandAugment.num_layers", self.num_layers, 0)
        within("RandAugment.magnitude", self.magnitude, 0, 10)

    def move(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Returns the picture, changed `num_layers` times."""
        image, steps = picture.image, picture.steps
        for number in rng.integers(len(_DRAWN), size=self.num_layers).tolist():
            operation = _DRAWN[number]
            amount = operation.strongest * self.magnitude / 10
            negative = operation.signed and rng.random() < 0.5
            image, moved = operation.apply(image, -amount if negative else amount)
            steps += moved
        return Picture(image, picture.source_size, steps)


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Fills a random box of the image with noise, with a probability.

    "Random Erasing Data Augmentation" (arXiv 1708.04896), with a random level for every
    pixel and channel. Differs from the paper: the aspect ratio is log-uniform, and if
    none of ten boxes fits, the image stays unchanged. Masks, boxes and landmarks stay
    unchanged, also under the noise.

    Attributes:
      probability: Share of the images that get a box of noise, in [0, 1].
      scale: Least and greatest share of the image's area, in (0, 1].
      ratio: Least and greatest width / height of the box.
    """

    probability: float
    scale: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self):
        within("RandomErasing.probability", self.probability, 0, 1)
        check_interval("RandomErasing.scale", self.scale, high=1.0)
        check_interval("RandomErasing.ratio", self.ratio)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the image uint8 `[H, W, 3]`, or a copy with a box of noise."""
        if rng.random() >= self.probability:
            return image
        box = sample_box(rng, image.shape[:2], self.scale, self.ratio)
        if box is None:
            return image
        top, left, height, width = box
        noise = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
        erased = image.copy()
        erased[top : top + height, left : left + width] = noise
        return erased


@dataclasses.dataclass(frozen=True)
class Compose:
    """Applies random transforms to a record, one after the other.

    Every transform changes the image. The other fields are moved once, at the end, by
    the placement that joins all movements.

    Attributes:
      transforms: The first one is applied first.
    """

    transforms: tuple[GeometricTransform | ColourTransform, ...]

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        """Returns the record after the last transform."""
        picture = Picture.of(record["image"])
        for transform in self.transforms:
            if isinstance(transform, GeometricTransform):
                picture = transform.move(picture, rng)
            else:
                picture = picture.recoloured(transform(picture.image, rng))
        return moved_record(record, picture)


def build_train(
    image_size: int,
    *,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    flip: float,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    randaugment_layers: int,
    randaugment_magnitude: float,
    erasing: float,
    rotation: float = 0.0,
) -> Compose:
    """Builds the stack for training.

    The order is rotation, crop, flip, colours, RandAugment, erasing. A transform whose
    strength is zero is omitted and costs nothing. With a rotation, a JPEG is decoded
    whole before it is cropped.

    Args:
      image_size: Height and width of the result, in pixels.
      crop_scale: `RandomResizedCrop.scale`.
      crop_ratio: `RandomResizedCrop.ratio`.
      flip: `HorizontalFlip.probability`.
      brightness: `ColorJitter.brightness`.
      contrast: `ColorJitter.contrast`.
      saturation: `ColorJitter.saturation`.
      hue: `ColorJitter.hue`.
      randaugment_layers: `RandAugment.num_layers`.
      randaugment_magnitude: `RandAugment.magnitude`.
      erasing: `RandomErasing.probability`.
      rotation: `RandomRotation.degrees`.

    Raises:
      InputError: A value is out of range, even if its transform is omitted.
    """
    stages = (
        (rotation, RandomRotation(rotation)),
        (True, RandomResizedCrop(image_size, crop_scale, crop_ratio)),
        (flip, HorizontalFlip(flip)),
        (
            brightness or contrast or saturation or hue,
            ColorJitter(brightness, contrast, saturation, hue),
        ),
        (randaugment_layers, RandAugment(randaugment_layers, randaugment_magnitude)),
        (erasing, RandomErasing(erasing)),
    )
    return Compose(tuple(transform for wanted, transform in stages if wanted))


def build_eval(image_size: int, crop_fraction: float) -> ResizeAndCenterCrop:
    """Builds the transform for evaluation, which is not random.

    `crops.Letterbox` is the alternative that keeps the whole image.

    Args:
      image_size: Height and width of the result, in pixels.
      crop_fraction: Share of the short side that is kept, in (0, 1].

    Raises:
      InputError: A value is out of range.
    """
    return ResizeAndCenterCrop(image_size, crop_fraction)
