"""JPEG files: what their markers say, and their pixels, if the file is whole.

Decoders are lenient: what is missing at the end comes back as grey. Asked to be strict,
libjpeg-turbo refuses that, but harmless oddities as well; those are decoded once more
and looked at.
"""

import dataclasses
import functools
import re
import struct
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import JpegImagePlugin

from fpn_jax.data.images import exif, pillow

# JPEG markers, ITU-T T.81, table B.1.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = _FRAMES | {0xC4, 0xCC} | frozenset(range(0xDA, 0xF0)) | {0xFE}
_ALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2

# Of libjpeg's warnings those that mean that pixels are made up.
_DAMAGE = re.compile(r"Premature end|Corrupt JPEG data: (?!\d+ extraneous bytes)")


@dataclasses.dataclass
class Header:
    """What the markers of a JPEG say.

    Attributes:
      height: Rows as stored, before the image is turned upright.
      width: Columns, likewise.
      frame: The marker of its frame: the coding process.
      precision: Bits per sample.
      components: Identifiers of the colour components.
      scans: Number of scans.
      missing: Per component a bit for each of the 64 coefficients that no scan has
        brought to full precision.
      exif: The Exif block, or nothing.
      scan_end: Offset of the marker that ends the last scan.
    """

    height: int = 0
    width: int = 0
    frame: int = 0
    precision: int = 0
    components: bytes = b""
    scans: int = 0
    missing: dict[int, int] = dataclasses.field(default_factory=dict)
    exif: bytes = b""
    scan_end: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is grey or of three colours, 8 bits each."""
        return self.precision == 8 and len(self.components) in (1, 3)

    def start_frame(self, marker: int, body: bytes) -> None:
        """Reads a frame header (B.2.2)."""
        (
            self.precision,
            self.height,
            self.width,
            count,
        ) = struct.unpack_from(">BHHB", body)
        pillow.check_size(self.width, self.height)
        self.frame = marker
        self.components = body[6 : 6 + 3 * count : 3]
        self.missing = dict.fromkeys(self.components, 2**64 - 1)

    def start_scan(self, body: bytes) -> None:
        """Reads a scan header (B.2.3)."""
        self.scans += 1
        count = body[0]
        first, last, approximation = 0, 63, 0
        if self.frame == _PROGRESSIVE:
            first, last, approximation = struct.unpack_from("3B", body, 1 + 2 * count)
        if approximation & 15 == 0:
            for component in body[1 : 1 + 2 * count : 2]:
                self.missing[component] &= ~(2 ** (last + 1) - 2**first)


def read_header(data: bytes) -> Header:
    """Walks over the segments and scans of a JPEG up to its end marker.

    Raises:
      ValueError: The markers say that the file is not whole, or too large.
    """
    header = Header()
    position, marker, in_scan = 2, 0, False
    while found := _MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker in _ALONE:
            continue
        if in_scan:
            header.scan_end, in_scan = found.start(), False
        if marker == _END:
            break
        if marker not in _SEGMENTS:
            raise ValueError(f"the JPEG data is damaged: marker 0x{marker:02x}")
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + length]
        position += length
        if position > len(data):
            break
        try:
            if marker in _FRAMES:
                header.start_frame(marker, body)
            elif marker == _SCAN:
                header.start_scan(body)
                in_scan = True
            elif marker == _APP1 and body.startswith(exif.HEADER):
                header.exif = header.exif or body
        except (struct.error, LookupError) as error:
            raise ValueError("the JPEG data is damaged: a short header") from error
    if marker != _END:
        raise ValueError("the JPEG is truncated: it has no end marker")
    if not header.scans or any(header.missing.values()):
        raise ValueError("the JPEG is truncated: scans are missing")
    return header


def decode(
    data: bytes, header: Header, *, reduction: int = 1, quick: bool = False
) -> np.ndarray:
    """Returns the image of a JPEG, upright, in RGB.

    Args:
      data: The bytes of the file.
      header: Of the same file.
      reduction: 1, 2, 4 or 8 divides height and width, rounded up: the image is made
        from the lowest 8 / reduction frequencies of each block, in both directions. Of
        a JPEG that is not plain it comes whole.
      quick: Less exact arithmetic, and chroma that is repeated instead of interpolated.

    Raises:
      ValueError: The file does not decode whole; the text is the reason.
    """
    if not header.plain:
        image = _with_pillow(data)
        whole = _reaches_its_end(data, header, image, _with_pillow)
    else:
        least = {
            "min_height": -(-header.height // reduction),
            "min_width": -(-header.width // reduction),
            "min_factor": reduction,
        }
        read = functools.partial(
            simplejpeg.decode_jpeg, fastdct=quick, fastupsample=quick, **least
        )
        image, whole = _read_plain(data, header, read)
    if not whole:
        raise ValueError("the JPEG is truncated: its last scan ends early")
    return exif.upright(image, exif.orientation(header.exif))


def _read_plain(data: bytes, header: Header, read: Callable) -> tuple[np.ndarray, bool]:
    """Returns the image of a plain JPEG, and whether it is all there."""
    try:
        return read(data), True
    except ValueError as error:
        said = str(error)
    if _DAMAGE.match(said):
        raise ValueError(f"the JPEG data is damaged: {said}")
    lenient = functools.partial(read, strict=False)
    try:
        image = lenient(data)
    except ValueError as error:
        raise ValueError(f"the JPEG data is damaged: {error}") from error
    return image, _reaches_its_end(data, header, image, lenient)


def _reaches_its_end(
    data: bytes, header: Header, image: np.ndarray, read: Callable
) -> bool:
    """Returns whether the last scan has data for all of its blocks."""
    if header.frame not in _SEQUENTIAL and header.frame != _PROGRESSIVE:
        return True
    # A decoder that has all it needs skips what it finds before the next marker; one
    # that still wants blocks makes them out of it.
    filler, end = bytes(range(1, 255)), header.scan_end
    filled = data[:end] + filler + data[end:]
    return np.array_equal(image, read(filled))


def _with_pillow(data: bytes) -> np.ndarray:
    # Without Exif blocks: Pillow looks there for a resolution and warns of bad ones.
    plain = data.replace(exif.HEADER, b"\0" * len(exif.HEADER))
    # The background is for transparency, which JPEGs have not.
    return pillow.decode("JPEG", JpegImagePlugin.JpegImageFile, plain, (0, 0, 0))
