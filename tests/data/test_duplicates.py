import io

import cv2
import numpy as np
import pytest
from PIL import Image

from fpn_jax.data import check, duplicates
from fpn_jax.data.duplicates import (
    NEAR_DUPLICATE_BITS,
    Fingerprint,
    fingerprint,
    near_duplicates,
)


def smooth(seed, height=120, width=160):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def compressed(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def bits(a, b):
    pair = [fingerprint(a).perceptual_hash, fingerprint(b).perceptual_hash]
    words = [np.frombuffer(one, np.uint8) for one in pair]
    return int(np.bitwise_count(words[0] ^ words[1]).sum())


def test_a_perceptual_hash_is_that_of_a_naive_loop():
    image = smooth(0)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
    expected = [
        small[row, column + 1] < small[row, column]
        for row in range(16)
        for column in range(16)
    ]
    value = np.unpackbits(np.frombuffer(fingerprint(image).perceptual_hash, np.uint8))
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_near_duplicates_and_others_are_not(seed):
    image = smooth(seed)
    half = cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA)
    brighter = np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8)
    for copy in (compressed(image, 50), half, compressed(half, 60), brighter):
        assert bits(image, copy) <= NEAR_DUPLICATE_BITS
    assert bits(image, smooth(seed + 100)) > NEAR_DUPLICATE_BITS
    assert bits(image, image[:, ::-1]) > NEAR_DUPLICATE_BITS


def test_size_counts_in_equality():
    flat = np.zeros((2, 6, 3), np.uint8)
    assert fingerprint(flat).pixels != fingerprint(flat.reshape(3, 4, 3)).pixels
    assert fingerprint(flat) == fingerprint(flat.copy())


def test_images_of_one_colour_have_no_perceptual_hash():
    prints = [fingerprint(np.full((30, 30, 3), g, np.uint8)) for g in (10, 20, 30)]
    assert [one.perceptual_hash for one in prints] == [b""] * 3
    assert list(near_duplicates(prints)) == []
    assert list(near_duplicates([])) == []


def made(*hashes):
    return [Fingerprint(bytes([index]), value) for index, value in enumerate(hashes)]


def test_all_pairs_are_found_in_blocks(monkeypatch):
    monkeypatch.setattr(duplicates, "_ROWS_AT_A_TIME", 3)
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32) for _ in range(10)]
    near = bytearray(hashes[2])
    near[0] ^= 0b111
    prints = made(*hashes, b"", bytes(near), hashes[7])
    assert sorted(near_duplicates(prints, 3)) == [(2, 11, 3), (7, 12, 0)]
    assert sorted(near_duplicates(prints, 2)) == [(7, 12, 0)]


def test_equal_ones_are_grouped_and_not_called_near_duplicates():
    value = bytes(range(32))
    a, b = Fingerprint(b"a", value), Fingerprint(b"b", value)
    assert duplicates.duplicates([a, b, a, a]) == [[0, 2, 3]]
    assert list(near_duplicates([a, a])) == []


def report(*rows):
    return check.Report(len(rows), (), {}, tuple(rows))


def test_only_images_in_two_splits_or_classes_are_named():
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32) for _ in range(5)]
    a, b, c, d, e = made(*hashes)
    near = bytearray(hashes[4])
    near[5] ^= 1
    reports = {
        "train": report(
            ("t/1", "cat", a),
            ("t/2", "cat", a),
            ("t/3", "cat", b),
            ("t/4", "dog", b),
            ("t/5", "dog", c),
            ("t/6", "dog", e),
        ),
        "validate": report(
            ("v/1", "dog", c),
            ("v/2", "cat", d),
            ("v/3", "cat", Fingerprint(b"other", bytes(near))),
        ),
    }
    assert [one.text() for one in check.find_duplicates(reports)] == [
        "duplicate in cat and dog: t/3, t/4",
        "duplicate in train and validate: t/5, v/1",
        "near-duplicate (1 of 256 bits differ) in train and validate, as dog and cat: "
        "t/6, v/3",
    ]
