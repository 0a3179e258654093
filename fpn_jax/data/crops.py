"""Crops, flips and letterboxes, which choose the `Placement` of an example.

The transforms for training draw it from a generator; the transforms for evaluation
depend on the image's size alone. They keep no state, so threads may share them and
workers may pickle them.
"""

import abc
import dataclasses
import math
import numbers

import numpy as np

from fpn_jax.data.geometry import Placement
from fpn_jax.data.images.decode import pixels
from fpn_jax.data.movements import Box, Crop, Flip, Size, reduction_for
from fpn_jax.data.pictures import Picture, moved_record
from fpn_jax.data.records import Record
from fpn_jax.errors import InputError, at_least, within


def check_interval(
    name: str, interval: tuple[float, float], high: float = math.inf
) -> None:
    """Refuses anything but two finite numbers above 0, the smaller one first.

    Args:
      name: What the interval is, such as `"RandomResizedCrop.scale"`.
      interval: The pair that was given.
      high: Limit of both numbers.

    Raises:
      InputError: The value is not such a pair.
    """
    pair = isinstance(interval, tuple | list) and len(interval) == 2
    finite = pair and all(
        isinstance(end, numbers.Real) and math.isfinite(end) for end in interval
    )
    if not finite or not 0 < interval[0] <= interval[1] <= high:
        bounds = "above 0" if math.isinf(high) else f"in (0, {high:g}]"
        raise InputError(
            f"{name} is {interval!r}; it must be two numbers {bounds}, least first"
        )


def check_whole(name: str, value: int, least: int) -> None:
    """Refuses anything but a whole number that is large enough.

    Args:
      name: What the number is, such as `"RandomResizedCrop.image_size"`.
      value: The number that was given.
      least: Smallest number allowed.

    Raises:
      InputError: The value is not a whole number, or too small.
    """
    if not isinstance(value, numbers.Integral):
        raise InputError(f"{name} is {value!r}; it must be a whole number")
    at_least(name, value, least)


def sample_box(
    rng: np.random.Generator,
    image_size: Size,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box | None:
    """Draws a box inside an image by its share of the area and its aspect ratio.

    The share is uniform and the aspect ratio log-uniform, so that a portrait box is as
    likely as a landscape one; the position is uniform. A box that does not fit is
    drawn again, ten times at most.

    Args:
      rng: Source of the draws.
      image_size: Height and width of the image, in pixels.
      scale: Least and greatest share of the image's area, in (0, 1].
      ratio: Least and greatest width / height.

    Returns:
      Top, left, height and width in pixels, or None if none of ten boxes fits.
    """
    height, width = image_size
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        # One RNG call: call overhead dominates.
        share, turn, down, across = rng.random(4).tolist()
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(log_ratio[0] + turn * (log_ratio[1] - log_ratio[0]))
        box_height = round(math.sqrt(area / aspect))
        box_width = round(math.sqrt(area * aspect))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = int(down * (height - box_height + 1))
            left = int(across * (width - box_width + 1))
            return top, left, box_height, box_width
    return None


def center_box(image_size: Size, height: int, width: int) -> Box:
    """Returns the box of a size in the middle of an image.

    Args:
      image_size: Height and width of the image, in pixels.
      height: Height of the box, at most the image's.
      width: Width of the box, at most the image's.

    Returns:
      Top, left, height and width, in pixels.
    """
    return (image_size[0] - height) // 2, (image_size[1] - width) // 2, height, width


class GeometricTransform(abc.ABC):
    """A random transform that moves the picture, not only its colours."""

    @abc.abstractmethod
    def move(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Returns the picture after the movement that is drawn."""


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(GeometricTransform):
    """Cuts out a random box and resizes it to a square.

    "Going Deeper with Convolutions" (arXiv 1409.4842), section 6: the box covers a
    uniform share of the image, its aspect ratio is log-uniform. If none of ten boxes
    fits, the largest box in the middle whose aspect ratio is in range is taken.

    Attributes:
      image_size: Height and width of the result, in pixels.
      scale: Least and greatest share of the image's area, in (0, 1].
      ratio: Least and greatest width / height of the box.
    """

    image_size: int
    scale: tuple[float, float] = (0.25, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        check_whole("RandomResizedCrop.image_size", self.image_size, 1)
        check_interval("RandomResizedCrop.scale", self.scale, high=1.0)
        check_interval("RandomResizedCrop.ratio", self.ratio)

    def move(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Returns the picture at `image_size`; decodes an encoded image."""
        size, side = picture.size, self.image_size
        box = sample_box(rng, size, self.scale, self.ratio)
        box = box or self._largest_center_box(size)
        reduction = reduction_for(picture.image, box, side)
        return picture.moved(Crop(size, (side, side), box, reduction))

    def _largest_center_box(self, size: Size) -> Box:
        height, width = size
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        box_height = max(1, min(height, round(width / aspect)))
        box_width = max(1, min(width, round(height * aspect)))
        return center_box(size, box_height, box_width)


@dataclasses.dataclass(frozen=True)
class HorizontalFlip(GeometricTransform):
    """Mirrors left and right, with a probability.

    Attributes:
      probability: Share of the images that are mirrored, in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self):
        within("HorizontalFlip.probability", self.probability, 0, 1)

    def move(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Returns the picture or its mirror image."""
        if rng.random() >= self.probability:
            return picture
        return picture.moved(Flip(picture.size))


class _FixedTransform(abc.ABC):
    """A transform of records that depends on the size of the image alone."""

    @abc.abstractmethod
    def placement(self, source_size: Size) -> Placement:
        """Returns the placement of an image of a size."""

    def __call__(self, record: Record) -> Record:
        """Returns the record after the placement; the image is decoded exactly."""
        image = pixels(record["image"])
        picture = Picture.of(image)
        picture = picture.moved(*self.placement(picture.size).steps)
        return moved_record(record, picture)


@dataclasses.dataclass(frozen=True)
class ResizeAndCenterCrop(_FixedTransform):
    """Resizes the short side to `round(image_size / crop_fraction)`, crops the middle.

    The middle is cut out first, at whole pixels of the given image, and only this part
    is resized, so an image of extreme aspect ratio is never enlarged as a whole. With
    `crop_fraction` 1 an image of the right size stays unchanged.

    Attributes:
      image_size: Height and width of the result, in pixels.
      crop_fraction: Share of the short side that the crop keeps, in (0, 1].
    """

    image_size: int
    crop_fraction: float = 0.875

    def __post_init__(self):
        check_whole("ResizeAndCenterCrop.image_size", self.image_size, 1)
        name = "ResizeAndCenterCrop.crop_fraction"
        within(name, self.crop_fraction, 0, 1, open_low=True)

    def placement(self, source_size: Size) -> Placement:
        """Returns the placement of an image of a size: a crop of its middle."""
        short_side = round(self.image_size / self.crop_fraction)
        side = max(1, round(min(source_size) * self.image_size / short_side))
        box = center_box(source_size, side, side)
        return Placement.crop(source_size, box, (self.image_size, self.image_size))


@dataclasses.dataclass(frozen=True)
class Letterbox(_FixedTransform):
    """Resizes the whole image to fit into a square, and pads it with grey 128.

    Attributes:
      image_size: Height and width of the result, in pixels.
    """

    image_size: int

    def __post_init__(self):
        check_whole("Letterbox.image_size", self.image_size, 1)

    def placement(self, source_size: Size) -> Placement:
        """Returns the placement of an image of a size inside of the square."""
        return Placement.letterbox(source_size, (self.image_size, self.image_size))
