"""Encoded bytes to an upright RGB array, or the reason why the file is not whole.

Decoders are lenient: what is missing at the end of a JPEG comes back as grey. A model
would learn that grey, so everything here is decoded whole or refused.

Plain JPEGs, by far the most, go through libjpeg-turbo itself, all other kinds through
Pillow.
"""

import dataclasses
import os
import re

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from fpn_jax.data.images import exif, jpeg, pillow, reading

WHITE = (255, 255, 255)
"""The background that transparent images are composited over unless told otherwise."""

_KINDS = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    ("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    ("BMP", re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    (
        "TIFF",
        re.compile(rb"II[*+]\0|MM\0[*+]"),
        TiffImagePlugin.TiffImageFile,
    ),
)


class Undecodable(ValueError):
    """Bytes do not decode whole; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A JPEG whose pixels are not decoded yet, but whose size is known.

    Attributes:
      data: The bytes of the file.
      header: What its markers say.
    """

    data: bytes
    header: jpeg.Header

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(H, W, 3)` of the upright image."""
        size = self.header.height, self.header.width
        sideways = exif.orientation(self.header.exif) in exif.SIDEWAYS
        return (*(size[::-1] if sideways else size), 3)

    def decode(self, *, reduction: int = 1, quick: bool = False) -> np.ndarray:
        """Returns the upright image in RGB.

        Args:
          reduction: 1, 2, 4 or 8, which divides height and width, rounded up; an
            unusual JPEG comes whole all the same.
          quick: Takes less exact arithmetic.

        Returns:
          uint8 `[H, W, 3]`.

        Raises:
          Undecodable: The file does not decode whole; the text is the reason.
        """
        try:
            return jpeg.decode(self.data, self.header, reduction=reduction, quick=quick)
        except ValueError as error:
            raise Undecodable(str(error)) from error


def decode(data: bytes, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Returns the (first) image of an encoded file, upright, in RGB.

    Reads JPEG, PNG, GIF, WebP, BMP and TIFF, whatever the file is called. Transparent
    pixels are composited over the background, 16-bit samples are rounded to 8 bits,
    and the EXIF orientation is applied. Colour profiles are not.

    Flipped bits of a JPEG that still make valid codes are noticed by no decoder.

    Args:
      data: The bytes of the file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: The file does not decode whole; the text is the reason.
    """
    return pixels(open_encoded(data, background=background))


def pixels(image: "Encoded | np.ndarray") -> np.ndarray:
    """Returns an image exactly decoded, if it was not already.

    Raises:
      ValueError: It does not decode whole; the text is the reason.
    """
    return image.decode() if isinstance(image, Encoded) else image


def open_encoded(
    data: bytes, *, background: tuple[int, int, int] = WHITE
) -> "Encoded | np.ndarray":
    """Returns a JPEG still encoded; an image of another kind as `decode` does.

    Args:
      data: The bytes of the file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Raises:
      ValueError: The file does not decode whole, as far as can be told; of a JPEG its
        `Encoded.decode` tells the rest.
    """
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    if data.startswith(b"\xff\xd8\xff"):
        return Encoded(data, jpeg.read_header(data))
    for kind, signature, reader in _KINDS:
        if signature.match(data):
            return pillow.decode(kind, reader, data, background)
    kinds = ", ".join(["JPEG", *(kind for kind, _, _ in _KINDS)])
    raise ValueError(f"the content is none of {kinds}")


def decode_file(
    path: str | os.PathLike, *, background: tuple[int, int, int] = WHITE
) -> np.ndarray:
    """Returns the (first) image of a file, as `decode` does.

    Args:
      path: A local file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: The file cannot be read or does not decode whole.
    """
    return decode(reading.read_file(path), background=background)
