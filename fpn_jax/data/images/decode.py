"""Encoded bytes to an upright RGB array, or the reason why the file is damaged.

Decoders are lenient: they fill the missing end of a JPEG with grey. A model would learn
that grey, so this module refuses a file that is not complete.

Plain JPEGs, the most frequent kind, are decoded by libjpeg-turbo, all other files by
Pillow.
"""

import dataclasses
import os
import re

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from fpn_jax.data.images import exif, jpeg, pillow, reading, unsupported

WHITE = (255, 255, 255)
"""The default background behind transparent pixels."""

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
    (
        "AVIF",
        re.compile(rb".{4}ftyp(?:avi[fs]|mif1.{4}(?:.{4})*?avif)", re.DOTALL),
        AvifImagePlugin.AvifImageFile,
    ),
)


class Undecodable(ValueError):
    """A file that cannot be decoded completely; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A JPEG whose pixels are not decoded yet, but whose size is known.

    Attributes:
      data: The bytes of the file.
      header: The contents of its markers.
    """

    data: bytes
    header: jpeg.Header

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(H, W, 3)` of the upright image."""
        size = self.header.height, self.header.width
        sideways = self.header.orientation in exif.SIDEWAYS
        return (*(size[::-1] if sideways else size), 3)

    def decode(self, *, reduction: int = 1, quick: bool = False) -> np.ndarray:
        """Returns the upright image in RGB.

        Args:
          reduction: 1, 2, 4 or 8, which divides height and width, rounded up; a JPEG
            that is not plain ignores it and keeps its size.
          quick: Whether to use faster, less exact arithmetic.

        Returns:
          uint8 `[H, W, 3]`.

        Raises:
          Undecodable: The file is damaged; the text is the reason.
        """
        try:
            return jpeg.decode(self.data, self.header, reduction=reduction, quick=quick)
        except ValueError as error:
            raise Undecodable(str(error)) from error


def decode(data: bytes, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Returns the (first) image of an encoded file, upright, in RGB.

    Reads JPEG, PNG, GIF, WebP, AVIF, BMP and TIFF; the contents decide, not the file's
    name. Transparent pixels are composited over the background, samples of more bits
    are rounded to 8 bits, and the orientation in Exif or XMP is applied. Colour
    profiles are ignored.

    No decoder notices flipped bits of a JPEG that still form valid codes.

    Args:
      data: The bytes of the file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: The file is damaged or of another kind; the text is the reason.
    """
    return pixels(open_encoded(data, background=background))


def pixels(image: "Encoded | np.ndarray") -> np.ndarray:
    """Returns the pixels of an image, decoded exactly if it is still encoded.

    Raises:
      Undecodable: The file is damaged; the text is the reason.
    """
    return image.decode() if isinstance(image, Encoded) else image


def open_encoded(
    data: bytes, *, background: tuple[int, int, int] = WHITE
) -> "Encoded | np.ndarray":
    """Returns a JPEG as `Encoded`, and an image of another kind decoded.

    Args:
      data: The bytes of the file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Raises:
      ValueError: The file is damaged or of another kind; the text is the reason. Of a
        JPEG only the markers are read here; `Encoded.decode` finds other damage.
    """
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    if data.startswith(b"\xff\xd8"):
        return Encoded(data, jpeg.read_header(data))
    for kind, signature, reader in _KINDS:
        if signature.match(data):
            return pillow.decode(kind, reader, data, background)
    if other := unsupported.reason(data):
        raise ValueError(other)
    kinds = ", ".join(["JPEG", *(kind for kind, _, _ in _KINDS)])
    raise ValueError(f"the content is none of {kinds}")


def decode_file(
    path: str | os.PathLike, *, background: tuple[int, int, int] = WHITE
) -> np.ndarray:
    """Returns the (first) image of a file; see `decode`.

    Args:
      path: A local file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: The file cannot be read or decoded; the text is the reason.
    """
    return decode(reading.read_file(path), background=background)
