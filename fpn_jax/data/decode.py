"""Encoded bytes to an upright RGB array, or the reason why the file is not whole.

Decoders are lenient: what is missing at the end of a JPEG comes back as grey. A model
would learn that grey, so everything here is decoded whole or refused.

Plain JPEGs, by far the most, go through OpenCV, which is about twice as fast as Pillow.
Its libraries write to stderr about damaged files, so nothing reaches it before the
markers of the file have been read. All other kinds go through Pillow.
"""

import dataclasses
import io
import os
import re
import struct

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused from their header, before memory is taken."""

WHITE = (255, 255, 255)
"""The background that transparent images are composited over unless told otherwise."""

# Opened by signature and class, not by Image.open: that one warns, by process-global
# settings, about sizes that are judged here by MAX_PIXELS.
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

_ORIENTED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}

_EXIF = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112

# JPEG markers, ITU-T T.81, table B.1.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = _FRAMES | {0xC4, 0xCC} | frozenset(range(0xDA, 0xF0)) | {0xFE}
_ALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2


def decode(data: bytes, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Returns the (first) image of an encoded file, upright, in RGB.

    Reads JPEG, PNG, GIF, WebP, BMP and TIFF, whatever the file is called. Transparent
    pixels are composited over the background, 16-bit samples are rounded to 8 bits,
    and the EXIF orientation is applied. Colour profiles are not.

    A JPEG whose only scan ends early, but that has an end marker all the same, is
    noticed when more than its last block (MCU) is missing. Flipped bits that still make
    valid codes are noticed by no JPEG decoder.

    Args:
      data: The bytes of the file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: The file does not decode whole; the text is the reason.
    """
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data)
    for kind, signature, reader in _KINDS:
        if signature.match(data):
            return _decode_with_pillow(kind, reader, data, background)
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
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    return decode(data, background=background)


@dataclasses.dataclass
class _Jpeg:
    """What the markers of a JPEG say.

    Attributes:
      frame: The marker of its frame: the coding process.
      precision: Bits per sample.
      components: Identifiers of the colour components.
      scans: Number of scans.
      missing: Per component a bit for each of the 64 coefficients that no scan has
        brought to full precision.
      exif: The Exif block, or nothing.
      end: Offset of the end marker.
    """

    frame: int = 0
    precision: int = 0
    components: bytes = b""
    scans: int = 0
    missing: dict[int, int] = dataclasses.field(default_factory=dict)
    exif: bytes = b""
    end: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is grey or of three colours, 8 bits each."""
        return self.precision == 8 and len(self.components) in (1, 3)

    def start_frame(self, marker: int, body: bytes) -> None:
        """Reads a frame header (B.2.2)."""
        self.precision, height, width, count = struct.unpack_from(">BHHB", body)
        _check_size(width, height)
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


def _read_markers(data: bytes) -> _Jpeg:
    """Walks over the segments and scans of a JPEG up to its end marker."""
    jpeg = _Jpeg()
    position = 2
    while found := _MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == _END:
            jpeg.end = found.start()
            break
        if marker in _ALONE:
            continue
        if marker not in _SEGMENTS:
            raise ValueError(f"the JPEG data is damaged: marker 0x{marker:02x}")
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + length]
        position += length
        if position > len(data):
            break
        try:
            if marker in _FRAMES:
                jpeg.start_frame(marker, body)
            elif marker == _SCAN:
                jpeg.start_scan(body)
            elif marker == _APP1 and body.startswith(_EXIF):
                jpeg.exif = jpeg.exif or body
        except (struct.error, LookupError) as error:
            raise ValueError("the JPEG data is damaged: a short header") from error
    if not jpeg.end:
        raise ValueError("the JPEG is truncated: it has no end marker")
    if not jpeg.scans or any(jpeg.missing.values()):
        raise ValueError("the JPEG is truncated: scans are missing")
    return jpeg


def _decode_jpeg(data: bytes) -> np.ndarray:
    jpeg = _read_markers(data)
    if jpeg.plain:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8),
            cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
        )
        if image is None:
            raise ValueError("the JPEG data is damaged")
    else:
        image = _jpeg_with_pillow(data)
    if not _reaches_its_end(jpeg, image, data):
        raise ValueError("the JPEG is truncated: its last scan ends early")
    return np.ascontiguousarray(_ORIENTED[_orientation(jpeg.exif)](image))


def _reaches_its_end(jpeg: _Jpeg, image: np.ndarray, data: bytes) -> bool:
    """Returns whether the last scan has data for all of its blocks."""
    if jpeg.frame not in _SEQUENTIAL and jpeg.frame != _PROGRESSIVE:
        return True
    # Blocks for which the data did not suffice are mid-grey; their luma is theirs
    # alone, while chroma is blended with the neighbours'.
    luma = image[-1, -1] @ (0.299, 0.587, 0.114)
    single_scan = jpeg.frame in _SEQUENTIAL and jpeg.scans == 1
    if jpeg.plain and single_scan and abs(luma - 128) > 2:
        return True
    # A decoder that has all it needs skips what it finds before the end marker; one
    # that still wants blocks makes them out of it.
    filled = data[: jpeg.end] + bytes(range(1, 255)) + data[jpeg.end :]
    filled_image = _jpeg_with_pillow(filled)
    # The second comparison is for two libraries that round differently.
    return np.array_equal(image, filled_image) or np.array_equal(
        _jpeg_with_pillow(data), filled_image
    )


def _jpeg_with_pillow(data: bytes) -> np.ndarray:
    # Without Exif blocks: Pillow looks there for a resolution and warns of bad ones.
    return _decode_with_pillow(
        "JPEG", JpegImagePlugin.JpegImageFile, data.replace(_EXIF, b"\0" * 6), WHITE
    )


def _decode_with_pillow(
    kind: str,
    reader: type[ImageFile.ImageFile],
    data: bytes,
    background: tuple[int, int, int],
) -> np.ndarray:
    try:
        if kind == "PNG":
            # Decoding alone looks at no checksum of the compressed data.
            with reader(io.BytesIO(data)) as image:
                image.verify()
        with reader(io.BytesIO(data)) as image:
            _check_size(*image.size)
            image.load()
            orient = _ORIENTED[_orientation(image.info.get("exif", b""))]
            if kind == "PNG" and data[24] == 16:
                rgb = _decode_png16(data, image.info.get("transparency"), background)
            else:
                rgb = np.asarray(_to_rgb(image, background))
    except ValueError:
        raise
    except Exception as error:
        # Pillow has no one exception for damaged files: OSError, SyntaxError,
        # struct.error, EOFError, DecompressionBombError and others are all seen.
        raise ValueError(f"the {kind} data is damaged: {error}") from error
    return np.ascontiguousarray(orient(rgb))


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((samples + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit samples have no range that says what is white")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, background)
    opaque.paste(image, mask=image.getchannel("A"))
    return opaque


def _decode_png16(
    data: bytes, transparent: int | tuple | None, background: tuple[int, int, int]
) -> np.ndarray:
    """Decodes a PNG of 16-bit samples, of which Pillow would drop the lower bytes."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image.ndim == 2:
        # OpenCV applies the transparent value (tRNS) to colours, but not to greys.
        alpha = np.where(image == transparent, 0, 65535).astype(np.uint16)
        image = np.stack([image, image, image, alpha], axis=-1)
    rgb = image[..., 2::-1].astype(np.float64)
    if image.shape[-1] == 4:
        alpha = image[..., 3:] / 65535
        rgb = rgb * alpha + np.multiply(background, 257) * (1 - alpha)
    return np.rint(rgb / 257).astype(np.uint8)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"the image has no pixels: {width} x {height}")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}"
        )


def _orientation(exif: bytes) -> int:
    """Returns the orientation of an Exif block, 1 where there is no sensible one."""
    exif = exif.removeprefix(_EXIF)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION_TAG:
                return value if value in _ORIENTED else 1
    except struct.error:
        pass
    return 1
