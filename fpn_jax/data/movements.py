"""Single movements of a picture, of which `geometry.Placement` is made.

Sizes are (height, width) in pixels. Nothing here writes into its input or keeps a
state.
"""

import math
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from fpn_jax.data.images.decode import Encoded, pixels

FILL = (128, 128, 128)
"""Colour of the area outside of a picture: grey."""

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Top, left, height and width, in whole pixels."""


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


def reduction_for(image: np.ndarray | Encoded, box: Box, least: int) -> int:
    """Returns the factor by which a JPEG is reduced while it is decoded: 1, 2, 4 or 8.

    Args:
      image: An array, or a JPEG that is still encoded; an array is never reduced.
      box: The part that is needed.
      least: Height and width that the reduced box must have, if the box itself has
        them.
    """
    if not isinstance(image, Encoded) or not image.header.plain:
        return 1
    shortest = min(box[2:])
    return next((r for r in (8, 4, 2) if shortest >= r * least), 1)


def _reduced(box: Box, size: Size, reduced: Size) -> Box:
    """Returns a box in the pixels of a smaller copy of its image, rounded."""
    top, left, height, width = box
    down, across = reduced[0] / size[0], reduced[1] / size[1]
    top, height = round(top * down), max(1, round(height * down))
    left, width = round(left * across), max(1, round(width * across))
    # If both numbers round up, the box may cross the border.
    return min(top, reduced[0] - height), min(left, reduced[1] - width), height, width


class Step(Protocol):
    """One movement of a picture.

    Attributes:
      source_size: Size of the picture before.
      size: Size of the picture after.
    """

    source_size: Size
    size: Size

    @property
    def matrix(self) -> np.ndarray:
        """Affine map `[3, 3]` from coordinates before to coordinates after."""

    def image(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Returns the image after the movement, uint8 `[h, w, 3]`."""


def scale_and_shift(across: float, down: float, x: float, y: float) -> np.ndarray:
    """Returns the map `[3, 3]` that scales along x and y, and then shifts."""
    return np.array([[across, 0, x], [0, down, y], [0, 0, 1]], np.float64)


class Crop(NamedTuple):
    """Cuts out a box and resizes it.

    Attributes:
      source_size: Size of the picture before.
      size: Size of the picture after.
      box: Part of the picture before, in pixels.
      reduction: Factor by which an encoded image is reduced while it is decoded.
    """

    source_size: Size
    size: Size
    box: Box
    reduction: int = 1

    @property
    def matrix(self) -> np.ndarray:
        """Affine map `[3, 3]` of the rounded box, which is the visible one."""
        r, box = self.reduction, self.box
        if r > 1:
            rows, columns = self.source_size
            # libjpeg turns `r × r` pixels into one; the last ones may be partial.
            box = _reduced(box, self.source_size, (-(-rows // r), -(-columns // r)))
        top, left, height, width = (r * side for side in box)
        down, across = self.size[0] / height, self.size[1] / width
        return scale_and_shift(across, down, -left * across, -top * down)

    def cut(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Returns the pixels of the box; an encoded image is decoded and reduced.

        Args:
          image: uint8 `[H, W, 3]`, or a JPEG of this size. A JPEG is decoded with fast
            arithmetic, and the box is rounded to pixels of the reduced image.

        Raises:
          Undecodable: The JPEG is damaged; the text is the reason.
        """
        box = self.box
        if isinstance(image, Encoded):
            image = image.decode(reduction=self.reduction, quick=True)
            box = _reduced(box, self.source_size, image.shape[:2])
        top, left, height, width = box
        return image[top : top + height, left : left + width]

    def image(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Returns the box of the image, resized."""
        return resize(self.cut(image), *self.size)


class Flip(NamedTuple):
    """Mirrors left and right.

    Attributes:
      source_size: Size of the picture before, and of the one after.
    """

    source_size: Size

    @property
    def size(self) -> Size:
        """Size of the picture after."""
        return self.source_size

    @property
    def matrix(self) -> np.ndarray:
        """Affine map `[3, 3]`: `x` becomes `W - x`."""
        return scale_and_shift(-1, 1, self.source_size[1], 0)

    def image(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Returns the mirror image."""
        return cv2.flip(pixels(image), 1)


class Pad(NamedTuple):
    """Puts the picture into a larger one.

    Attributes:
      source_size: Size of the picture before.
      size: Size of the picture after.
      corner: Row and column that the top left pixel gets.
    """

    source_size: Size
    size: Size
    corner: tuple[int, int]

    @property
    def matrix(self) -> np.ndarray:
        """Affine map `[3, 3]`, a shift."""
        return scale_and_shift(1, 1, self.corner[1], self.corner[0])

    def image(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Returns the image with grey around it."""
        (top, left), (height, width) = self.corner, self.source_size
        padded = np.full((*self.size, 3), FILL, np.uint8)
        padded[top : top + height, left : left + width] = pixels(image)
        return padded


class Warp(NamedTuple):
    """Moves the picture by an affine map, with linear interpolation.

    Attributes:
      source_size: Size of the picture before.
      size: Size of the picture after.
      pixel_matrix: The map `[2, 3]` as OpenCV takes it: whole numbers are the middles
        of pixels.
    """

    source_size: Size
    size: Size
    pixel_matrix: tuple[tuple[float, float, float], ...]

    @classmethod
    def of(cls, source_size: Size, size: Size, matrix: np.ndarray) -> "Warp":
        """Returns the warp of a map `[3, 3]` of continuous coordinates."""
        matrix = _TO_MIDDLES @ matrix @ _FROM_MIDDLES
        return cls(source_size, size, tuple(map(tuple, matrix[:2].tolist())))

    @property
    def matrix(self) -> np.ndarray:
        """Affine map `[3, 3]` of continuous coordinates."""
        pixel_matrix = np.array([*self.pixel_matrix, (0, 0, 1)])
        return _FROM_MIDDLES @ pixel_matrix @ _TO_MIDDLES

    def image(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Returns the warped image, grey outside of the picture."""
        matrix = np.array(self.pixel_matrix)
        return cv2.warpAffine(pixels(image), matrix, self.size[::-1], borderValue=FILL)


_TO_MIDDLES = scale_and_shift(1, 1, -0.5, -0.5)
_FROM_MIDDLES = scale_and_shift(1, 1, 0.5, 0.5)


def warp(
    source_size: Size, linear: np.ndarray, shift: tuple[float, float] = (0.0, 0.0)
) -> Warp:
    """Returns the step that moves `center + v` to `center + linear @ v + shift`.

    Args:
      source_size: Size of the picture before, and of the one after.
      linear: `[2, 2]`, applied to `(x, y)`.
      shift: `(x, y)` in pixels.
    """
    height, width = source_size
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    x, y = (center - linear @ center).tolist()
    (a, b), (d, e) = linear.tolist()
    rows = (a, b, x + shift[0]), (d, e, y + shift[1])
    return Warp(source_size, source_size, rows)


def rotate(source_size: Size, degrees: float) -> Warp:
    """Returns the step that turns the picture counterclockwise around its middle."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return warp(source_size, np.array([[cos, sin], [-sin, cos]]))


def shear(source_size: Size, x: float = 0.0, y: float = 0.0) -> Warp:
    """Returns the step that shears the picture around its middle.

    Differs from the published code of RandAugment, which shears around the top left
    corner: there, most of the picture also moves sideways.

    Args:
      source_size: Size of the picture before, and of the one after.
      x: Pixels to the right for each pixel downwards.
      y: Pixels downwards for each pixel to the right.
    """
    return warp(source_size, np.array([[1.0, x], [y, 1.0]]))


def translate(source_size: Size, x: float, y: float) -> Warp:
    """Returns the step that shifts the picture by a share of its width and height."""
    height, width = source_size
    rows = (1.0, 0.0, x * width), (0.0, 1.0, y * height)
    return Warp(source_size, source_size, rows)
