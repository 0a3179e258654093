"""What views paint on pictures: colours of classes, overlays, boxes, points, text."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from fpn_jax.data.records import printable
from fpn_jax.views.caption import font

COLOURS = np.array(
    [
        [30, 120, 220],
        [235, 120, 25],
        [40, 165, 80],
        [205, 60, 130],
        [130, 90, 210],
        [0, 165, 175],
        [190, 150, 0],
        [220, 70, 60],
    ],
    np.uint8,
)
"""Colours that stay apart for most eyes; class `i` has colour `i % 8`."""
TRUTH = (255, 255, 255)
"""Colour of true boxes and points, which are dashed or hollow."""
LEGIBLE = 320
"""A picture whose longer side is smaller is enlarged before text is painted."""


def colour_of(label: int) -> tuple[int, int, int]:
    """Returns the colour of a class or of a landmark.

    Args:
      label: 0 or more; a negative one is grey.
    """
    if label < 0:
        return (128, 128, 128)
    return tuple(COLOURS[label % len(COLOURS)].tolist())


def enlarged(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns a copy of a picture that is large enough for text, and the factor.

    Args:
      image: uint8 `[H, W, 3]`.
    """
    factor = max(LEGIBLE // max(image.shape[:2]), 1)
    return image.repeat(factor, axis=0).repeat(factor, axis=1).copy(), factor


def mask_colours(mask: np.ndarray) -> np.ndarray:
    """Returns a class map in colours, uint8 `[H, W, 3]`; class 0 is black.

    Args:
      mask: uint8 `[H, W]`; 255 is ignored, and grey.
    """
    table = np.zeros((256, 3), np.uint8)
    for value in range(1, 255):
        table[value] = colour_of(value - 1)
    table[255] = colour_of(-1)
    return table[mask]


def over_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns a picture with its classes in colour and their borders as lines.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      mask: uint8 `[H, W]`; class 0 stays as it is, but darker.
    """
    colours = mask_colours(mask).astype(np.float32)
    shown = (mask > 0)[..., None]
    painted = np.where(shown, 0.55 * image + 0.45 * colours, 0.6 * image)
    painted = painted.round().astype(np.uint8)
    for value in np.unique(mask):
        if value in (0, 255):
            continue
        region = (mask == value).astype(np.uint8)
        outlines, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        width = max(1, round(max(mask.shape) / 300))
        cv2.drawContours(painted, outlines, -1, colour_of(int(value) - 1), width)
    return painted


def box(
    image: np.ndarray, corners: np.ndarray, colour: tuple[int, int, int], text: str = ""
) -> None:
    """Paints a box, and a label above it, into a picture.

    Nothing is painted if a number is not finite.

    Args:
      image: uint8 `[H, W, 3]`, changed in place.
      corners: `(x0, y0, x1, y1)` in pixels.
      colour: RGB.
      text: The label; empty for none.
    """
    if not np.isfinite(corners).all():
        return
    width = max(2, round(max(image.shape[:2]) / 200))
    x0, y0, x1, y1 = (round(float(value)) for value in corners)
    cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), colour, width, cv2.LINE_AA)
    if text:
        label(image, (x0, y0), text, colour)


def label(
    image: np.ndarray, corner: tuple[int, int], text: str, colour: tuple[int, int, int]
) -> None:
    """Paints a text on a ground of a colour, above a place, inside of the picture.

    Args:
      image: uint8 `[H, W, 3]`, changed in place.
      corner: x and y of the lower left corner of the text, in pixels.
      text: One line.
      colour: RGB of the ground.
    """
    size = int(np.clip(max(image.shape[:2]) / 28, 11, 28))
    face = font("DejaVuSans-Bold", size)
    # A space that does not break a line is no character of its own in a picture.
    text = printable(text.replace("\u00a0", " "))
    width, height = round(face.getlength(text)) + size // 2 * 2, round(1.5 * size)
    x = int(np.clip(corner[0], 0, max(image.shape[1] - width, 0)))
    y = int(np.clip(corner[1] - height, 0, max(image.shape[0] - height, 0)))
    ground = Image.new("RGB", (width, height), colour)
    ink = (0, 0, 0) if sum(colour) > 460 else (255, 255, 255)
    ImageDraw.Draw(ground).text((size // 2, height // 2), text, ink, face, anchor="lm")
    part = image[y : y + height, x : x + width]
    part[:] = np.asarray(ground)[: part.shape[0], : part.shape[1]]


def point(
    image: np.ndarray,
    place: np.ndarray,
    colour: tuple[int, int, int],
    hollow: bool = False,
) -> None:
    """Paints a dot with a white rim into a picture, or a ring.

    Nothing is painted if the place is far outside of the picture, or not finite.

    Args:
      image: uint8 `[H, W, 3]`, changed in place.
      place: x and y in pixels.
      colour: RGB.
      hollow: Whether it is a ring.
    """
    radius = max(3, round(max(image.shape[:2]) / 90))
    size = np.array(image.shape[1::-1])
    if not ((place[:2] > -2 * radius) & (place[:2] < size + 2 * radius)).all():
        return
    # Continuous coordinates: the centre of pixel 0 is at 0.5.
    center = tuple(round(16 * (float(value) - 0.5)) for value in place[:2])
    look = {"lineType": cv2.LINE_AA, "shift": 4}
    if hollow:
        cv2.circle(image, center, 16 * radius, colour, 2, **look)
        return
    cv2.circle(image, center, 16 * (radius + 1), TRUTH, -1, **look)
    cv2.circle(image, center, 16 * radius, colour, -1, **look)
