"""PNG files: the chunks of the first image, without those of an animation."""

import struct
from collections.abc import Collection, Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def still(data: bytes) -> bytes:
    """Returns the file without the chunks of its animation.

    Decoders return another frame, or a black image, for some animated files.

    Args:
      data: The bytes of a PNG file.
    """
    kinds = {kind for kind, _ in _chunks(data)}
    return _only(data, kinds - _ANIMATION) if kinds & _ANIMATION else data


def pixels_only(data: bytes) -> bytes:
    """Returns the file with only those chunks that determine its pixels.

    Args:
      data: The bytes of a PNG file.
    """
    return _only(data, _PIXELS)


def _only(data: bytes, kinds: Collection[bytes]) -> bytes:
    return _SIGNATURE + b"".join(
        chunk for kind, chunk in _chunks(data) if kind in kinds
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields type and bytes of every chunk; the last one may be cut off."""
    position = len(_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        yield kind, data[position:end]
        position = end
