"""The orientation in Exif or XMP, and turning an image upright by it."""

import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

HEADER = b"Exif\0\0"
"""The first bytes of an Exif block in a JPEG."""

_ORIENTATION_TAG = 0x0112
_VALUE_OF_TYPE = {3: "H", 4: "I"}
"""Type of an Exif value → code of `struct`: SHORT and LONG."""

_IN_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")

_UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}

SIDEWAYS = frozenset({5, 6, 7, 8})
"""Orientations that exchange height and width."""


def orientation(block: bytes, xmp: bytes = b"") -> int:
    """Returns the stored orientation, 1 to 8; 1 if there is no valid one.

    The orientation in Exif is used even if it is invalid, and the one in XMP only if
    Exif has none. Pillow has the same order.

    Args:
      block: The Exif block, with or without `HEADER`.
      xmp: The XMP packet.
    """
    value = _in_exif(block)
    if value is None:
        found = _IN_XMP.search(xmp)
        value = int(found[1]) if found else 1
    return value if value in _UPRIGHT else 1


def orientation_in(info: Mapping[Any, Any]) -> int:
    """Returns the orientation in the metadata that Pillow found in a file.

    Args:
      info: The attribute `info` of an image. ImageMagick stores an Exif block in a PNG
        as text: a name, the number of bytes, and the bytes in hexadecimal.
    """
    block, xmp = info.get("exif") or b"", info.get("xmp") or b""
    for key in ("Raw profile type exif", "Raw profile type APP1"):
        block = block or _raw_profile(info.get(key, ""))
    xmp = (
        xmp
        or info.get("XML:com.adobe.xmp")
        or _raw_profile(info.get("Raw profile type xmp", ""))
    )
    return orientation(block, xmp.encode() if isinstance(xmp, str) else xmp)


def _raw_profile(text: str) -> bytes:
    try:
        return bytes.fromhex("".join(text.split()[2:]))
    except ValueError:
        return b""


def _in_exif(block: bytes) -> int | None:
    """Returns the value of the orientation in an Exif block, or None."""
    block = block.removeprefix(HEADER)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, entry)
            if tag == _ORIENTATION_TAG:
                code = order + _VALUE_OF_TYPE.get(kind, "H")
                return struct.unpack_from(code, block, entry + 8)[0]
    except struct.error:
        pass
    return None


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image turned upright.

    Args:
      image: `[H, W, C]` as stored.
      orientation: Exif orientation, 1 to 8.

    Returns:
      `[H, W, C]`, or `[W, H, C]` for the orientations in `SIDEWAYS`; contiguous.
    """
    return np.ascontiguousarray(_UPRIGHT[orientation](image))
