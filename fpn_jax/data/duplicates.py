"""Images that occur more than once: duplicates and near-duplicates.

An image that is in the training and in the validation split makes the validation
metrics too good; an image under two classes teaches neither. Duplicates have equal
pixels and are found by a hash of the pixels. Near-duplicates, copies that were scaled
or compressed again, are found by a perceptual hash: the difference hash, whose bits say
where a small grey copy of the image grows darker from left to right (N. Krawetz, "Kind
of Like That", 2013; here of 16 × 16 bits).
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

HASH_SIDE = 16
"""Bits of a perceptual hash in both directions."""

NEAR_DUPLICATE_BITS = 28
"""Images whose perceptual hashes differ in at most this many bits are near-duplicates.

Among 3,000 photographs of cats and dogs the closest pair that is not a copy differs in
47 of the 256 bits; copies scaled to a half and compressed at quality 60 differ in 20 or
fewer."""

# Differences below this, of 255, are noise; an image of one colour has no others.
_LEAST_DIFFERENCE = 2.0
_ROWS_AT_A_TIME = 1024


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to find its copies.

    Attributes:
      pixels: SHA-256 of the size and the pixels.
      perceptual_hash: 256 bits, 32 bytes; empty for an image without enough structure.
    """

    pixels: bytes
    perceptual_hash: bytes


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Returns the fingerprint of an image, uint8 `[H, W, 3]`."""
    size = np.array(image.shape, np.int64).tobytes()
    pixels = hashlib.sha256(size + np.ascontiguousarray(image).tobytes()).digest()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small_size = HASH_SIDE + 1, HASH_SIDE
    small = cv2.resize(grey, small_size, interpolation=cv2.INTER_AREA)
    differences = np.diff(small, axis=1)
    clear = np.count_nonzero(np.abs(differences) >= _LEAST_DIFFERENCE)
    if clear < differences.size // 4:
        return Fingerprint(pixels, b"")
    return Fingerprint(pixels, np.packbits(differences < 0).tobytes())


def duplicates(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Returns groups of images with equal pixels, as indices into `prints`."""
    groups: dict[bytes, list[int]] = {}
    for index, one in enumerate(prints):
        groups.setdefault(one.pixels, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(
    prints: Sequence[Fingerprint], most_bits: int = NEAR_DUPLICATE_BITS
) -> Iterator[tuple[int, int, int]]:
    """Yields pairs of near-duplicates whose pixels are not equal.

    Every image is compared with every other one: two seconds for 10,000 images.

    Args:
      prints: Fingerprints of the images.
      most_bits: Number of bits that may differ.

    Yields:
      Both indices into `prints`, the smaller one first, and the number of bits that
      differ.
    """
    hashed = [i for i, one in enumerate(prints) if one.perceptual_hash]
    if not hashed:
        return
    joined = b"".join(prints[i].perceptual_hash for i in hashed)
    hashes = np.frombuffer(joined, np.uint64).reshape(len(hashed), -1)
    for start in range(0, len(hashed), _ROWS_AT_A_TIME):
        rows = hashes[start : start + _ROWS_AT_A_TIME]
        bits = np.zeros((len(rows), len(hashes)), np.uint16)
        for word in range(hashes.shape[1]):
            bits += np.bitwise_count(rows[:, word, None] ^ hashes[None, :, word])
        for row, column in np.argwhere(bits <= most_bits):
            first, second = hashed[start + row], hashed[column]
            if first < second and prints[first].pixels != prints[second].pixels:
                yield first, second, int(bits[row, column])
