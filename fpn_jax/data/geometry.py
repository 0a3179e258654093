"""Geometry of one image: crop, resize and flip; uint8 `[H, W, 3]` in and out.

Only a random crop also takes a JPEG that is still encoded: it decodes what it needs.

A random transform takes its `np.random.Generator` with the image and keeps no state, so
it may be pickled and shared by threads. No transform writes into its input.
"""

import dataclasses
import math
import numbers

import cv2
import numpy as np

from fpn_jax.data.images.decode import Encoded, pixels
from fpn_jax.data.records import Record
from fpn_jax.errors import InputError


def require_within(name: str, value: float, low: float, high: float) -> None:
    """Refuses a number outside the closed interval from `low` to `high`.

    Args:
      name: What the number is, such as `"HorizontalFlip.probability"`.
      value: The number that was given.
      low: Smallest number allowed.
      high: Largest number allowed.

    Raises:
      InputError: It is no number, or lies outside.
    """
    if not isinstance(value, numbers.Real) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; it must lie in [{low:g}, {high:g}]")


def require_interval(
    name: str, interval: tuple[float, float], high: float = math.inf
) -> None:
    """Refuses anything but two finite numbers above 0 that do not fall.

    Args:
      name: What the interval is, such as `"RandomResizedCrop.scale"`.
      interval: The pair that was given.
      high: Neither number may be greater.

    Raises:
      InputError: It is no such pair.
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


def require_image_size(name: str, value: int) -> None:
    """Refuses an image size that is no whole number of pixels, 1 or more.

    Args:
      name: What the size is, such as `"RandomResizedCrop.image_size"`.
      value: The size that was given, in pixels.

    Raises:
      InputError: It is no whole number, or less than 1.
    """
    if not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(
            f"{name} is {value!r}; it must be a whole number of pixels, 1 or more"
        )


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an image, without aliasing along an axis that shrinks.

    An axis that shrinks is averaged over areas (`INTER_AREA`); an axis that grows is
    interpolated linearly (`INTER_LINEAR`), which never overshoots.

    Args:
      image: uint8 `[H, W, 3]`.
      height: New height, in pixels.
      width: New width, in pixels.

    Returns:
      uint8 `[height, width, 3]`, contiguous; the image itself where it has this size.
    """
    # OpenCV averages areas only if neither axis grows, hence one step for each kind.
    shrunk = min(image.shape[0], height), min(image.shape[1], width)
    if shrunk != image.shape[:2]:
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(image)


def sample_box(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int] | None:
    """Draws a box inside an image by its share of the area and its aspect ratio.

    The share is uniform and the aspect ratio log-uniform, so that an upright box is as
    likely as a lying one; the position is uniform. A box that sticks out is drawn anew,
    ten times at most.

    Args:
      rng: Source of the draws.
      image_size: Height and width of the image, in pixels.
      scale: Least and greatest share of the image's area, in (0, 1].
      ratio: Least and greatest width / height.

    Returns:
      Top, left, height and width in pixels, or None if no box of ten fitted.
    """
    height, width = image_size
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        # One call for all four: what a call costs is not the drawing.
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


def center_box(
    image_size: tuple[int, int], height: int, width: int
) -> tuple[int, int, int, int]:
    """Returns the box of a size in the middle of an image.

    Args:
      image_size: Height and width of the image, in pixels.
      height: Height of the box, at most the image's.
      width: Width of the box, at most the image's.

    Returns:
      Top, left, height and width, in pixels.
    """
    return (image_size[0] - height) // 2, (image_size[1] - width) // 2, height, width


def cut(
    image: np.ndarray | Encoded, box: tuple[int, int, int, int], least: int
) -> np.ndarray:
    """Returns the pixels of a box, of an encoded image perhaps fewer of them.

    A JPEG is decoded at a half, a quarter or an eighth of its size where the box then
    still has `least` pixels on both sides, and in quick arithmetic. The box is rounded
    to whole pixels of the smaller image.

    Args:
      image: uint8 `[H, W, 3]`, or a JPEG of this size.
      box: Top, left, height and width, in pixels.
      least: Pixels on a side that must be left, where there are as many.

    Raises:
      Undecodable: The JPEG does not decode whole; the text is the reason.
    """
    top, left, height, width = box
    if isinstance(image, Encoded):
        shortest = min(height, width)
        reduction = next((r for r in (8, 4, 2) if shortest >= r * least), 1)
        rows, columns, _ = image.shape
        image = image.decode(reduction=reduction, quick=True)
        down, across = image.shape[0] / rows, image.shape[1] / columns
        top, height = round(top * down), max(1, round(height * down))
        left, width = round(left * across), max(1, round(width * across))
        # Rounding both ends up may lead over the edge.
        top = min(top, image.shape[0] - height)
        left = min(left, image.shape[1] - width)
    return image[top : top + height, left : left + width]


@dataclasses.dataclass(frozen=True)
class ResizeAndCenterCrop:
    """Resizes the short side to `round(image_size / crop_fraction)`, crops the middle.

    The crop is cut out first, in whole pixels of the given image, and is the only part
    to be resized (by `resize`): an image of extreme aspect never grows. With
    `crop_fraction` 1 an image of the right size passes unchanged.

    Attributes:
      image_size: Height and width of the result, in pixels.
      crop_fraction: Share of the short side that the crop keeps, in (0, 1].
    """

    image_size: int
    crop_fraction: float = 0.875

    def __post_init__(self):
        require_image_size("ResizeAndCenterCrop.image_size", self.image_size)
        fraction = self.crop_fraction
        if not isinstance(fraction, numbers.Real) or not 0 < fraction <= 1:
            raise InputError(
                f"ResizeAndCenterCrop.crop_fraction is {fraction!r}; it must lie in "
                "(0, 1]"
            )

    def __call__(self, record: Record) -> Record:
        """Returns the record with an image uint8 `[image_size, image_size, 3]`."""
        image = pixels(record["image"])
        short_side = round(self.image_size / self.crop_fraction)
        side = max(1, round(min(image.shape[:2]) * self.image_size / short_side))
        top, left, height, width = center_box(image.shape[:2], side, side)
        crop = image[top : top + height, left : left + width]
        return record | {"image": resize(crop, self.image_size, self.image_size)}


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts out a random box and resizes it to a square.

    "Going Deeper with Convolutions" (arXiv 1409.4842), section 6: the box covers a
    uniform share of the image, its aspect ratio is log-uniform. If ten boxes do not
    fit, the largest box in the middle whose aspect ratio is in range is taken.

    Attributes:
      image_size: Height and width of the result, in pixels.
      scale: Least and greatest share of the image's area, in (0, 1].
      ratio: Least and greatest width / height of the box.
    """

    image_size: int
    scale: tuple[float, float] = (0.25, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        require_image_size("RandomResizedCrop.image_size", self.image_size)
        require_interval("RandomResizedCrop.scale", self.scale, high=1.0)
        require_interval("RandomResizedCrop.ratio", self.ratio)

    def __call__(
        self, image: np.ndarray | Encoded, rng: np.random.Generator
    ) -> np.ndarray:
        """Returns uint8 `[image_size, image_size, 3]` of an image uint8 `[H, W, 3]`."""
        size = image.shape[:2]
        box = sample_box(rng, size, self.scale, self.ratio)
        crop = cut(image, box or self._largest_center_box(size), self.image_size)
        return resize(crop, self.image_size, self.image_size)

    def _largest_center_box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        height, width = size
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        box_height = max(1, min(height, round(width / aspect)))
        box_width = max(1, min(width, round(height * aspect)))
        return center_box(size, box_height, box_width)


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors left and right, with a probability.

    Attributes:
      probability: Share of the images that are mirrored, in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self):
        require_within("HorizontalFlip.probability", self.probability, 0, 1)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the image uint8 `[H, W, 3]`, or its mirror image."""
        return cv2.flip(image, 1) if rng.random() < self.probability else image
