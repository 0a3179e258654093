"""Changes of an image's colours; no pixel moves.

Every function takes and returns uint8 `[H, W, 3]` RGB and does not write into its
input.
"""

import dataclasses

import cv2
import numpy as np

from fpn_jax.errors import at_least, within

_LEVELS = np.arange(256, dtype=np.float32)
# Weights of R, G and B in grey: ITU-R BT.601, as OpenCV and Pillow have them.
_LUMA = (0.299, 0.587, 0.114)


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
    """Turns the hue of every pixel, in HSV of floating-point numbers.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      shift: Part of the hue circle, in [-0.5, 0.5]; a third takes red to green.

    Returns:
      uint8 `[H, W, 3]`.
    """
    # Eight bits for each of hue, saturation and value would lose up to 7 levels.
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * shift) % 360
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.clip(np.rint(turned), 0, 255).astype(np.uint8)


def adjust_sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Returns `factor * image + (1 - factor) * smooth(image)`, clipped.

    Smoothing is the 3 × 3 mean in which the middle counts five times. The pixels at the
    border are not smoothed, as in Pillow.

    Args:
      image: uint8 `[H, W, 3]` RGB.
      factor: 0 is the smooth image, 1 the image itself.

    Returns:
      uint8 `[H, W, 3]`.
    """
    kernel = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = image.copy()
    inner = cv2.filter2D(image, -1, kernel)[1:-1, 1:-1]
    smooth[1:-1, 1:-1] = inner
    return cv2.addWeighted(image, factor, smooth, 1 - factor, 0)


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretches every channel linearly to the range 0 to 255."""
    levels = _LEVELS[:, None, None]
    low = image.min(axis=0).min(axis=0).astype(np.float32)
    high = image.max(axis=0).max(axis=0).astype(np.float32)
    # A channel with a single level has nothing to stretch and keeps its level.
    stretched = (levels - low) * 255 / np.maximum(high - low, 1)
    return _map_levels(image, np.where(high > low, stretched, levels))


def equalize(image: np.ndarray) -> np.ndarray:
    """Equalizes the histogram of every channel, with the rounding of Pillow."""
    return cv2.merge([_equalized(channel) for channel in cv2.split(image)])


def _equalized(channel: np.ndarray) -> np.ndarray:
    counts = np.bincount(channel.ravel(), minlength=256)
    last = int(counts[np.flatnonzero(counts)[-1]])
    step = (channel.size - last) // 255
    if not step:
        return channel
    below = np.cumsum(counts) - counts
    table = np.minimum((step // 2 + below) // step, 255)
    return cv2.LUT(channel, table.astype(np.uint8))


def solarize(image: np.ndarray, amount: float) -> np.ndarray:
    """Inverts the levels from `256 - amount` upwards; 0 leaves the image as it is."""
    inverted = _LEVELS + amount >= 256
    return _map_levels(image, np.where(inverted, 255 - _LEVELS, _LEVELS))


def posterize(image: np.ndarray, dropped_bits: float) -> np.ndarray:
    """Clears the lowest bits of every level, rounded to a whole number of bits."""
    return image & np.uint8(0xFF << round(dropped_bits) & 0xFF)


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
            at_least(f"ColorJitter.{name}", getattr(self, name), 0)
        within("ColorJitter.hue", self.hue, 0, 0.5)

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
