"""Random changes of one image's colours and shape, and the stack for training.

Like everything in `transforms`: uint8 `[H, W, 3]` RGB in and out, no state, the
generator comes with the image, the input is never written into.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from fpn_jax.data.geometry import (
    HorizontalFlip,
    RandomResizedCrop,
    ResizeAndCenterCrop,
    require_interval,
    require_within,
    sample_box,
)
from fpn_jax.data.records import Record
from fpn_jax.errors import InputError

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""A random transform of one image uint8 `[H, W, 3]`."""

_LEVELS = np.arange(256, dtype=np.float32)
_LUMA = (0.299, 0.587, 0.114)  # of R, G and B: ITU-R BT.601, as OpenCV and Pillow have.
_FILL = (128, 128, 128)


def _map_levels(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Returns `factor * image`, clipped.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      factor: 0 is black, 1 the image itself.

    Returns:
      uint8 `[H, W, 3]`.
    """
    return _map_levels(image, factor * _LEVELS)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Returns `factor * image + (1 - factor) * mean(grey(image))`, clipped.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      factor: 0 is even grey, 1 the image itself.

    Returns:
      uint8 `[H, W, 3]`.
    """
    # Grey is linear in the channels, so its mean needs no grey image.
    mean_grey = np.dot(cv2.mean(image)[:3], _LUMA)
    return _map_levels(image, factor * _LEVELS + (1 - factor) * mean_grey)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Returns `factor * image + (1 - factor) * grey(image)`, clipped.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      factor: 0 is the grey image, 1 the image itself.

    Returns:
      uint8 `[H, W, 3]`.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turns the hue of every pixel, in HSV of eight bits each.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      shift: Part of the hue circle, in [-0.5, 0.5]; a third takes red to green.

    Returns:
      uint8 `[H, W, 3]`.
    """
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))
    hue += np.uint8(round(256 * shift) % 256)  # uint8 wraps round as the circle does.
    turned = cv2.merge([hue, saturation, value])
    return cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL)


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Returns `factor * image + (1 - factor) * smooth(image)`, clipped.

    Smoothing is the 3 × 3 mean in which the middle counts five times.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      factor: 0 is the smooth image, 1 the image itself.

    Returns:
      uint8 `[H, W, 3]`.
    """
    kernel = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return cv2.addWeighted(image, factor, smooth, 1 - factor, 0)


def _auto_contrast(image: np.ndarray) -> np.ndarray:
    levels = _LEVELS[:, None, None]
    low = image.min(axis=0).min(axis=0).astype(np.float32)
    high = image.max(axis=0).max(axis=0).astype(np.float32)
    # A channel of one level has nothing to stretch and keeps its level.
    stretched = (levels - low) * 255 / np.maximum(high - low, 1)
    return _map_levels(image, np.where(high > low, stretched, levels))


def _equalize(image: np.ndarray) -> np.ndarray:
    return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)])


def _solarize(image: np.ndarray, amount: float) -> np.ndarray:
    inverted = _LEVELS + amount >= 256
    return _map_levels(image, np.where(inverted, 255 - _LEVELS, _LEVELS))


def _posterize(image: np.ndarray, dropped_bits: float) -> np.ndarray:
    return image & np.uint8(0xFF << round(dropped_bits) & 0xFF)


def _warp(image: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Moves the point `center + v` of an image to `center + linear @ v`."""
    height, width = image.shape[:2]
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([linear, center - linear @ center])
    return cv2.warpAffine(image, matrix, (width, height), borderValue=_FILL)


def _rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _warp(image, np.array([[cos, sin], [-sin, cos]]))


def _translate(image: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = image.shape[:2]
    matrix = np.array([[1, 0, x * width], [0, 1, y * height]], np.float64)
    return cv2.warpAffine(image, matrix, (width, height), borderValue=_FILL)


class Operation(NamedTuple):
    """One operation of `RandAugment`.

    Attributes:
      apply: Takes an image and the amount; the amount 0 leaves the image as it is,
        except for the operations that have no amount.
      strongest: The amount at magnitude 10; it grows linearly from 0.
      signed: Whether half of the amounts are negative.
    """

    apply: Callable[[np.ndarray, float], np.ndarray]
    strongest: float
    signed: bool


OPERATIONS = {
    "identity": Operation(lambda image, _: image, 0.0, False),
    "auto_contrast": Operation(lambda image, _: _auto_contrast(image), 0.0, False),
    "equalize": Operation(lambda image, _: _equalize(image), 0.0, False),
    # Degrees, counterclockwise.
    "rotate": Operation(_rotate, 30.0, True),
    # Levels from 256 - amount upwards are inverted.
    "solarize": Operation(_solarize, 256.0, False),
    # The factor of the next five is 1 + amount.
    "color": Operation(lambda image, d: adjust_saturation(image, 1 + d), 0.9, True),
    # Lowest bits that are cleared.
    "posterize": Operation(_posterize, 4.0, False),
    "contrast": Operation(lambda image, d: adjust_contrast(image, 1 + d), 0.9, True),
    "brightness": Operation(
        lambda image, d: adjust_brightness(image, 1 + d), 0.9, True
    ),
    "sharpness": Operation(lambda image, d: adjust_sharpness(image, 1 + d), 0.9, True),
    # Pixels along one axis per pixel along the other.
    "shear_x": Operation(
        lambda image, s: _warp(image, np.array([[1, s], [0, 1]])), 0.3, True
    ),
    "shear_y": Operation(
        lambda image, s: _warp(image, np.array([[1, 0], [s, 1]])), 0.3, True
    ),
    # Share of the image's width or height.
    "translate_x": Operation(lambda image, t: _translate(image, t, 0), 0.45, True),
    "translate_y": Operation(lambda image, t: _translate(image, 0, t), 0.45, True),
}
"""The fourteen operations of the paper, and how strong each may become."""

_DRAWN = tuple(OPERATIONS.values())


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue, in this order.

    A strength `s` draws a factor uniformly from `[max(0, 1 - s), 1 + s]`; a strength of
    0 leaves its property alone. The order is fixed.

    Attributes:
      brightness: Strength, 0 or more.
      contrast: Strength, 0 or more.
      saturation: Strength, 0 or more.
      hue: The hue turns by a uniform part of the circle in `[-hue, hue]`; at most 0.5.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation"):
            require_within(f"ColorJitter.{name}", getattr(self, name), 0, math.inf)
        require_within("ColorJitter.hue", self.hue, 0, 0.5)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the image uint8 `[H, W, 3]` in other colours."""
        for strength, adjust in (
            (self.brightness, adjust_brightness),
            (self.contrast, adjust_contrast),
            (self.saturation, adjust_saturation),
        ):
            if strength:
                image = adjust(image, rng.uniform(max(0, 1 - strength), 1 + strength))
        return (
            adjust_hue(image, rng.uniform(-self.hue, self.hue)) if self.hue else image
        )


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies a few operations out of fourteen, each equally likely, one by one.

    "RandAugment: Practical automated data augmentation with a reduced search space"
    (arXiv 1909.13719). `OPERATIONS` says how strong each one is; what enters from
    outside the image is grey 128.

    Attributes:
      num_layers: Operations per image, 0 or more.
      magnitude: Strength of all of them, in [0, 10].
    """

    num_layers: int = 2
    magnitude: float = 9.0

    def __post_init__(self):
        if not isinstance(self.num_layers, numbers.Integral) or self.num_layers < 0:
            raise InputError(
                f"RandAugment.num_layers is {self.num_layers!r}; it must be a whole "
                "number, 0 or more"
            )
        require_within("RandAugment.magnitude", self.magnitude, 0, 10)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the image uint8 `[H, W, 3]`, changed `num_layers` times."""
        for number in rng.integers(len(_DRAWN), size=self.num_layers):
            apply, strongest, signed = _DRAWN[number]
            amount = strongest * self.magnitude / 10
            negative = signed and rng.random() < 0.5
            image = apply(image, -amount if negative else amount)
        return image


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Fills a random box with noise, with a probability.

    "Random Erasing Data Augmentation" (arXiv 1708.04896), with a random level for every
    pixel and channel. Differs from the paper: the aspect ratio is log-uniform, and
    after ten boxes that do not fit the image stays whole.

    Attributes:
      probability: Share of the images that lose a box, in [0, 1].
      scale: Least and greatest share of the image's area, in (0, 1].
      ratio: Least and greatest width / height of the box.
    """

    probability: float
    scale: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self):
        require_within("RandomErasing.probability", self.probability, 0, 1)
        require_interval("RandomErasing.scale", self.scale, high=1.0)
        require_interval("RandomErasing.ratio", self.ratio)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the image uint8 `[H, W, 3]`, or a copy that lacks a box."""
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
    """Applies random transforms one after the other.

    Attributes:
      transforms: The first one is applied first.
    """

    transforms: tuple[Transform, ...]

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        """Returns the record with what the last transform makes of its image."""
        image = record["image"]
        for transform in self.transforms:
            image = transform(image, rng)
        return record | {"image": image}


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
) -> Compose:
    """Builds the stack for training: crop, flip, colours, RandAugment, erasing.

    What is at zero is left out, and costs nothing.

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

    Raises:
      InputError: A value is out of range, be it for something left out.
    """
    stages = (
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

    Args:
      image_size: Height and width of the result, in pixels.
      crop_fraction: Share of the short side that is kept, in (0, 1].

    Raises:
      InputError: A value is out of range.
    """
    return ResizeAndCenterCrop(image_size, crop_fraction)
