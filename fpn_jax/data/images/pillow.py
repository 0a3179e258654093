"""Decoding with Pillow, without a change of Pillow's process-wide settings."""

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image, ImageFile

from fpn_jax.data.images import exif, png

MAX_PIXELS = 100_000_000
"""Limit of an image's pixels, checked in the header before memory is allocated."""


_FILTERS = threading.Lock()

_UNSUPPORTED = re.compile(r"(?i)unknown|unsupported|not (supported|implemented)|cannot")

# Tags and values of TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def check_size(width: int, height: int) -> None:
    """Refuses a size before memory is allocated for it.

    Raises:
      ValueError: There are no pixels, or more than `MAX_PIXELS`.
    """
    if width < 1 or height < 1:
        raise ValueError(f"the image has no pixels: {width} x {height}")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}"
        )


def decode(
    kind: str,
    reader: type[ImageFile.ImageFile],
    data: bytes,
    background: tuple[int, int, int],
) -> np.ndarray:
    """Returns the (first) image of a file, upright, in RGB.

    Args:
      kind: Name of the file format, for the text of an error.
      reader: Pillow's class for the format. `Image.open` would warn about sizes that
        `check_size` judges, by a process-wide setting.
      data: The bytes of the file.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.

    Raises:
      ValueError: The file is damaged; the text is the reason.
    """
    try:
        with _quiet(kind):
            return _decode(kind, reader, data, background)
    except ValueError:
        raise
    except Exception as error:
        # Pillow has no single exception for damaged files: it raises OSError,
        # SyntaxError, struct.error, EOFError, DecompressionBombError and others.
        text = str(error)
        # The text of a KeyError is only the value that a table of Pillow lacks.
        if isinstance(error, KeyError) or isinstance(error.__cause__, KeyError):
            text = f"unknown value {text}"
        if _UNSUPPORTED.search(text):
            raise ValueError(f"this kind of {kind} is not supported: {text}") from error
        reason = text if " " in text else "its header or data is inconsistent"
        raise ValueError(f"the {kind} data is damaged: {reason}") from error


def _decode(
    kind: str,
    reader: type[ImageFile.ImageFile],
    data: bytes,
    background: tuple[int, int, int],
) -> np.ndarray:
    if kind == "PNG":
        data = png.still(data)
        # Decoding alone does not verify the checksums of the compressed data.
        with reader(io.BytesIO(data)) as image:
            image.verify()
    with reader(io.BytesIO(data)) as image:
        check_size(*image.size)
        image.load()
        orientation = exif.orientation_in(image.info)
        if kind == "PNG" and data[24] == 16:
            rgb = _decode_png16(data, image.info.get("transparency"), background)
        else:
            rgb = np.asarray(_to_rgb(image, background))
    return exif.upright(rgb, orientation)


@contextlib.contextmanager
def _quiet(kind: str) -> Iterator[None]:
    """Hides the warnings of Pillow, which only its reader of TIFF gives."""
    if kind != "TIFF":
        yield
        return
    # The filters of warnings belong to the whole process.
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _grey_tiff(image: Image.Image) -> Image.Image:
    """Returns an image of 9 to 16 bits, in which 0 is black, at 8 bits."""
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    samples = np.minimum(np.asarray(image).astype(np.uint32), white)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        samples = white - samples
    return Image.fromarray(((samples * 255 + white // 2) // white).astype(np.uint8))


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey_tiff(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(
            "32-bit samples are not supported: their white level is unknown"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, background)
    opaque.paste(image, mask=image.getchannel("A"))
    return opaque


def _decode_png16(
    data: bytes, transparent: int | tuple | None, background: tuple[int, int, int]
) -> np.ndarray:
    """Decodes a PNG of 16-bit samples, whose lower bytes Pillow would drop."""
    # OpenCV prints warnings about the metadata.
    encoded = np.frombuffer(png.pixels_only(data), np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if image.ndim == 2:
        # OpenCV applies the transparent value (tRNS) to colour images only.
        alpha = np.where(image == transparent, 0, 65535).astype(np.uint16)
        image = np.stack([image, image, image, alpha], axis=-1)
    rgb = image[..., 2::-1].astype(np.float64)
    if image.shape[-1] == 4:
        alpha = image[..., 3:] / 65535
        rgb = rgb * alpha + np.multiply(background, 257) * (1 - alpha)
    return np.rint(rgb / 257).astype(np.uint8)
