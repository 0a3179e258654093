"""Files that are intact but unusual, and files that are not supported."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, features

from fpn_jax.data.images import exif, jpeg
from fpn_jax.data.images.decode import decode, open_encoded


def picture(height=40, width=56, seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), 3))


def encoded(image, kind="JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def segments(data: bytes) -> list[bytes]:
    """Splits a JPEG of one scan before every marker of its header; the scan is last."""
    parts, position = [data[:2]], 2
    while data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        parts.append(data[position:end])
        position = end
    return [*parts, data[position:]]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


OPTIONS = [{"quality": 90}, {"progressive": True}, {"restart_marker_blocks": 3}]

DAMAGED_METADATA = {
    "icc": segment(0xE2, b"ICC_PROFILE\0\3\2" + b"x" * 9),
    "adobe": segment(0xEE, b"Ado"),
    "exif": segment(0xE1, b"Exif\0\0MM\0"),
    "unknown": segment(0xEB, b"\0" * 30),
    "comment": segment(0xFE, b"\xff\x00"),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("junk", [b"\0", b"\0\0", b"\4\6" + bytes(14), b"\x01" * 300])
def test_bytes_between_the_header_s_segments_are_no_damage(options, junk):
    data = encoded(picture(), **options)
    parts = segments(data)
    for index in range(1, len(parts)):
        changed = b"".join([*parts[:index], junk, *parts[index:]])
        np.testing.assert_array_equal(decode(changed), decode(data))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", DAMAGED_METADATA)
def test_damaged_metadata_is_no_damage_of_the_pixels(options, name):
    data = encoded(picture(), **options)
    parts = segments(data)
    for index in range(1, len(parts)):
        changed = b"".join([*parts[:index], DAMAGED_METADATA[name], *parts[index:]])
        np.testing.assert_array_equal(decode(changed), decode(data))


def test_a_reduced_image_ignores_bytes_between_segments_too():
    data = encoded(picture(80, 96))
    parts = segments(data)
    changed = b"".join([*parts[:2], b"\0\0", *parts[2:]])
    for quick in (False, True):
        options = {"reduction": 2, "quick": quick}
        one, other = (open_encoded(d).decode(**options) for d in (data, changed))
        np.testing.assert_array_equal(one, other)


def resampled(data: bytes, factors: list[int]) -> bytes:
    """Changes the sampling factors in the frame header, without changing the scan."""
    parts = segments(data)
    index = next(i for i, part in enumerate(parts) if part[1:2] == b"\xc0")
    frame = bytearray(parts[index])
    for component, factor in enumerate(factors):
        frame[11 + 3 * component] = factor
    return b"".join([*parts[:index], bytes(frame), *parts[index + 1 :]])


def test_unusual_sampling_is_what_pillow_decodes():
    # One block of every component is one unit of 8 × 8 pixels, so the scan of an image
    # of 8 × 24 pixels has 3 units; with luma 1 × 3 they are blocks of one component.
    flat = np.full((8, 8, 3), (200, 60, 90), np.uint8)
    data = resampled(encoded(flat, subsampling=0), [0x12, 0x12, 0x11])
    frame = jpeg.read_header(data)
    assert frame.sampling == ((2, 1), (2, 1), (1, 1))
    assert not frame.plain
    for subsampling, plain in ((0, True), (1, True), (2, True)):
        usual = encoded(picture(), subsampling=subsampling)
        assert jpeg.read_header(usual).plain is plain


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_cut_file_with_bytes_between_segments_is_refused(options):
    """Every cut, also with an end marker behind it."""
    data = encoded(picture(24, 24), quality=95, **options)
    parts = segments(data)
    changed = b"".join([*parts[:2], b"\0\0", DAMAGED_METADATA["icc"], *parts[2:]])
    whole = decode(data)
    for length in range(len(changed) - 3):
        cut = changed[:length]
        for tail in (b"", b"\xff\xd9"):
            try:
                image = decode(cut + tail)
            except ValueError:
                continue
            # Only the fill bits of the scan and its end marker may be missing.
            assert length >= len(changed) - 4
            np.testing.assert_array_equal(image, whole)


def exif_block(order: str, kind: int, value: int) -> bytes:
    code = {3: "HH", 4: "I"}[kind]
    packed = struct.pack(order + code, *([value, 0] if kind == 3 else [value]))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHHI", 1, 0x0112, kind, 1) + packed
    return exif.HEADER + head + entry + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP"])
def test_orientation_in_either_byte_order_and_type(order, kind, suffix):
    image = picture()
    block = exif_block(order, kind, 6)
    upright = decode(encoded(image, suffix, exif=block))
    assert upright.shape == (56, 40, 3)
    plain = decode(encoded(image, suffix))
    np.testing.assert_array_equal(upright, np.rot90(plain, -1))


def text_chunk(kind: bytes, body: bytes) -> bytes:
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body))
    )


def with_chunk(data: bytes, chunk: bytes, last: bool = False) -> bytes:
    position = len(data) - 12 if last else 33
    return data[:position] + chunk + data[position:]


XMP = (
    b'<x tiff:Orientation="6"/>',
    b"<x tiff:Orientation = '6'/>",
    b"<tiff:Orientation>6</tiff:Orientation>",
    b"<tiff:Orientation>\n 6 </tiff:Orientation>",
)


@pytest.mark.parametrize("xmp", XMP)
@pytest.mark.parametrize("last", [False, True])
def test_orientation_in_the_xmp_of_a_png(xmp, last):
    data = encoded(picture(), "PNG")
    chunk = text_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    upright = decode(with_chunk(data, chunk, last))
    np.testing.assert_array_equal(upright, np.rot90(picture(), -1))


@pytest.mark.parametrize("name", [b"exif", b"APP1"])
@pytest.mark.parametrize("compressed", [False, True])
def test_orientation_in_imagemagick_s_profile_of_a_png(name, compressed):
    block = exif_block(">", 3, 6)
    lines = [block.hex()[i : i + 72] for i in range(0, 2 * len(block), 72)]
    text = f"\n{name.decode()}\n{len(block):8d}\n".encode() + "\n".join(lines).encode()
    key = b"Raw profile type " + name + b"\0"
    chunk = text_chunk(b"tEXt", key + text)
    if compressed:
        chunk = text_chunk(b"zTXt", key + b"\0" + zlib.compress(text))
    upright = decode(with_chunk(encoded(picture(), "PNG"), chunk))
    np.testing.assert_array_equal(upright, np.rot90(picture(), -1))


def test_exif_comes_before_xmp():
    xmp = XMP[0]
    assert exif.orientation(b"", xmp) == 6
    assert exif.orientation(exif_block("<", 3, 3), xmp) == 3
    data = encoded(picture(), "JPEG", xmp=xmp)
    assert open_encoded(data).shape == decode(data).shape == (56, 40, 3)


def tiff(samples: np.ndarray, bits: int, photometric: int, order: str) -> bytes:
    """Writes grey samples `[H, W]` as one uncompressed strip."""
    rows = []
    for row in samples:
        if bits == 16:
            rows.append(row.astype(order + "u2").tobytes())
        else:
            text = "".join(f"{value:0{bits}b}" for value in row)
            text += "0" * (-len(text) % 8)
            rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    strip, (height, width) = b"".join(rows), samples.shape
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1),
        (262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 4, height),
        (279, 4, len(strip)),
    ]  # fmt: skip
    head = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        code = "HHIHH" if kind == 3 else "HHII"
        values = (value, 0) if kind == 3 else (value,)
        directory += struct.pack(order + code, tag, kind, 1, *values)
    offset = struct.pack(order + "I", 8 + len(strip))
    return head + offset + strip + directory + bytes(4)


REFUSED_TIFFS = {(12, 0, "<"), (12, 0, ">"), (12, 1, ">"), (16, 0, ">")}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_tiffs_have_their_white_and_black(bits, photometric, order):
    white = 2**bits - 1
    samples = np.linspace(0, white, 32).round().astype(int).reshape(2, 16)
    data = tiff(samples, bits, photometric, order)
    # Pillow reads the usual forms.
    if (bits, photometric, order) in REFUSED_TIFFS:
        with pytest.raises(ValueError, match="this kind of TIFF is not supported"):
            decode(data)
        return
    image = decode(data)
    expected = samples if photometric == 1 else white - samples
    np.testing.assert_allclose(image[..., 0], expected / white * 255, atol=0.51)


def animated_png16() -> tuple[bytes, np.ndarray]:
    samples = np.random.default_rng(3).integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    ihdr = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    control = struct.pack(">IIIIIHHBB", 0, 7, 5, 0, 0, 1, 10, 0, 0)
    second = struct.pack(">I", 1) + control[4:]
    frame = struct.pack(">I", 2) + zlib.compress(bytes(len(rows)))
    chunks = [
        (b"IHDR", ihdr),
        (b"acTL", struct.pack(">II", 2, 0)),
        (b"fcTL", control),
        (b"IDAT", zlib.compress(rows)),
        (b"fcTL", second),
        (b"fdAT", frame),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(text_chunk(*chunk) for chunk in chunks)
    return data, samples.astype(int)


def test_the_first_frame_of_an_animated_png_of_16_bits():
    data, samples = animated_png16()
    np.testing.assert_allclose(decode(data), samples / 257, atol=0.51)
    with pytest.raises(ValueError, match="PNG data is damaged"):
        decode(data[:-30])


def test_no_warning_leaves_the_decoder():
    damaged = tiff(np.zeros((2, 16), int), 8, 1, "<")
    # A tag of three values where one is expected.
    many = damaged.replace(
        struct.pack("<HHI", 277, 3, 1), struct.pack("<HHI", 277, 3, 3)
    )
    animation, _ = animated_png16()
    for data in (many, animation, animation.replace(b"acTL", b"acTL")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            threads = [threading.Thread(target=_attempt, args=(data,)) for _ in "ab"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not caught


def _attempt(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC files are not supported"),
        (b"8BPS\0\1", "Photoshop files are not supported"),
        (b'<?xml version="1.0"?>\n<svg width="1">', "SVG files are not supported"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL files are not supported"),
        (b"\0\0\1\0\1\0", "icon files are not supported"),
        (b"\0\0\0\x18ftypmp42", "the content is a video, not an image"),
        (b"PK\3\4", "the content is a ZIP archive, not an image"),
        (b"just text", "the content is none of JPEG, PNG"),
    ],
)
def test_other_formats_are_named_and_not_called_damaged(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode(data + bytes(40))


def test_reasons_have_words():
    data = bytearray(encoded(picture(), "BMP"))
    data[14] = 198  # The size of the header, which is none of the known ones.
    with pytest.raises(ValueError, match="this kind of BMP is not supported"):
        decode(bytes(data))
    data = bytearray(tiff(np.zeros((2, 16), int), 8, 1, "<"))
    position = data.index(struct.pack("<HHIH", 259, 3, 1, 1)) + 8
    data[position : position + 2] = struct.pack("<H", 34712)
    with pytest.raises(ValueError, match="this kind of TIFF is not supported: unknown"):
        decode(bytes(data))


@pytest.mark.skipif(not features.check("avif"), reason="Pillow cannot read AVIF here")
def test_avif_and_mpo_are_read_and_refused_when_cut():
    image = picture()
    data = encoded(image, "AVIF", quality=95)
    assert np.abs(decode(data).astype(int) - image).mean() < 4
    for length in range(20, len(data) - 1, 97):
        with pytest.raises(ValueError, match=r"AVIF|none of"):
            decode(data[:length])
    buffer = io.BytesIO()
    first, second = Image.fromarray(image), Image.fromarray(image[::-1])
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(buffer.getvalue()), decode(encoded(image)))
