"""JPEG files: their markers, and their pixels if the file is complete.

Decoders are lenient: they fill the missing end of a file with grey. In its strict mode
libjpeg-turbo refuses such files, but also harmless oddities; a file that it refuses is
decoded once more in lenient mode, and the result is examined.
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
# Segments that determine pixels: frames, tables, restart intervals, JFIF and Adobe.
_ESSENTIAL = _FRAMES | {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xE0, 0xEE}
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

# Rows and columns of luma for each one of chroma that libjpeg-turbo names.
_USUAL_SAMPLING = frozenset({(1, 1), (1, 2), (2, 2), (2, 1), (1, 4), (4, 1)})

# The warnings of libjpeg that mean that the decoder invented pixels.
_DAMAGE = re.compile(r"Premature end|Corrupt JPEG data: (?!\d+ extraneous bytes)")


@dataclasses.dataclass
class Header:
    """The contents of a JPEG's markers.

    Attributes:
      height: Number of rows as stored, before the image is turned upright.
      width: Number of columns as stored.
      frame: The marker of the frame, which names the coding process.
      precision: Bits per sample.
      components: Identifiers of the colour components.
      scans: Number of scans.
      missing: Component → a bit for each of the 64 coefficients that no scan has
        completed to full precision.
      exif: The Exif block, or no bytes.
      xmp: The XMP packet, or no bytes.
      sampling: Horizontal and vertical sampling factor of every component.
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
    xmp: bytes = b""
    sampling: tuple[tuple[int, int], ...] = ()
    scan_end: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is grey or has three colours, of 8 bits and usual sampling."""
        if self.precision != 8 or len(self.components) not in (1, 3):
            return False
        (down, across), *chroma = self.sampling
        shares = {(down / v, across / h) for v, h in chroma}
        return len(shares) < 2 and shares <= _USUAL_SAMPLING

    @property
    def orientation(self) -> int:
        """The stored orientation, 1 to 8."""
        return exif.orientation(self.exif, self.xmp)

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
        factors = [divmod(factor, 16) for factor in body[7 : 6 + 3 * count : 3]]
        if not all(v and h for h, v in factors):
            raise ValueError("the JPEG data is damaged: a sampling factor is 0")
        self.sampling = tuple((v, h) for h, v in factors)
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
    """Reads the segments and scans of a JPEG up to its end marker.

    Raises:
      ValueError: The file is incomplete or damaged by its markers, or too large.
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
            elif marker == _APP1 and body.startswith(_XMP):
                header.xmp = header.xmp or body
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
      header: The header of the same file.
      reduction: 1, 2, 4 or 8 divides height and width, rounded up: the image is made
        from the lowest 8 / reduction frequencies of each block, in both directions. A
        JPEG that is not plain keeps its size.
      quick: Whether to use faster, less exact arithmetic, and to repeat chroma instead
        of interpolating it.

    Raises:
      ValueError: The file is damaged; the text is the reason.
    """
    if not header.plain:
        image = _with_pillow(data)
        complete = _reaches_its_end(data, header, image, _with_pillow)
    else:
        least = {
            "min_height": -(-header.height // reduction),
            "min_width": -(-header.width // reduction),
            "min_factor": reduction,
        }
        read = functools.partial(
            simplejpeg.decode_jpeg, fastdct=quick, fastupsample=quick, **least
        )
        image, complete = _read_plain(data, header, read)
    if not complete:
        raise ValueError("the JPEG is truncated: its last scan ends early")
    return exif.upright(image, header.orientation)


def _read_plain(data: bytes, header: Header, read: Callable) -> tuple[np.ndarray, bool]:
    """Returns the image of a plain JPEG, and whether the file is complete."""
    try:
        return read(data), True
    except ValueError as error:
        refusal = str(error)
    # Cameras and editors write metadata that libjpeg refuses beside intact pixels.
    data, scan_end = without_metadata(data, header.scan_end)
    header = dataclasses.replace(header, scan_end=scan_end)
    try:
        return read(data), True
    except ValueError as error:
        refusal = str(error)
    if _DAMAGE.match(refusal):
        raise ValueError(f"the JPEG data is damaged: {refusal}")
    lenient = functools.partial(read, strict=False)
    try:
        image = lenient(data)
    except ValueError as error:
        raise ValueError(f"the JPEG data is damaged: {error}") from error
    return image, _reaches_its_end(data, header, image, lenient)


def without_metadata(data: bytes, scan_end: int) -> tuple[bytes, int]:
    """Returns a JPEG without its metadata and the bytes between its segments.

    Args:
      data: The bytes of a file that `read_header` accepts.
      scan_end: Offset of the marker that ends the last scan.

    Returns:
      The essential segments and the scans, and the new offset of that marker.
    """
    kept, position, in_scan = [b"\xff\xd8"], 2, False
    while found := _MARKER.search(data, position):
        marker, start = found[1][0], found.start()
        if in_scan and marker not in _ALONE:
            kept.append(data[position:start])
            in_scan = False
        if start == scan_end:
            scan_end = sum(map(len, kept))
        if marker == _END:
            kept.append(data[start:])
            break
        if marker in _ALONE:
            if in_scan:
                kept.append(data[position : found.end()])
            position = found.end()
            continue
        end = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        if marker in _ESSENTIAL:
            kept.append(data[start:end])
        position, in_scan = end, marker == _SCAN
    return b"".join(kept), scan_end


def _reaches_its_end(
    data: bytes, header: Header, image: np.ndarray, read: Callable
) -> bool:
    """Returns whether the last scan has data for all of its blocks."""
    if header.frame not in _SEQUENTIAL and header.frame != _PROGRESSIVE:
        return True
    # A decoder with all of its blocks skips extra bytes before the next marker; a
    # decoder that still needs blocks decodes them from these bytes.
    filler, end = bytes(range(1, 255)), header.scan_end
    filled = data[:end] + filler + data[end:]
    return np.array_equal(image, read(filled))


def _with_pillow(data: bytes) -> np.ndarray:
    # Hide the Exif blocks: Pillow reads the resolution there and warns of bad values.
    plain = data.replace(exif.HEADER, b"\0" * len(exif.HEADER))
    # A JPEG has no transparency, so the background has no effect.
    return pillow.decode("JPEG", JpegImagePlugin.JpegImageFile, plain, (0, 0, 0))
