"""The orientation in an Exif block, and turning an image upright by it."""

import struct

import numpy as np

HEADER = b"Exif\0\0"
"""The first bytes of an Exif block in a JPEG."""

_ORIENTATION_TAG = 0x0112

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


def orientation(block: bytes) -> int:
    """Returns the orientation in an Exif block, 1 to 8; 1 if there is no valid one.

    Args:
      block: The block, with or without `HEADER`.
    """
    block = block.removeprefix(HEADER)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
            if tag == _ORIENTATION_TAG:
                return value if value in _UPRIGHT else 1
    except struct.error:
        pass
    return 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image turned upright.

    Args:
      image: `[H, W, C]` as stored.
      orientation: Exif orientation, 1 to 8.

    Returns:
      `[H, W, C]`, or `[W, H, C]` for the orientations in `SIDEWAYS`; contiguous.
    """
    return np.ascontiguousarray(_UPRIGHT[orientation](image))
