import io
import random
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fpn_jax.data.images import pillow
from fpn_jax.data.images.decode import decode, decode_file

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
PHOTOGRAPHS = SHARED / "cats_dogs"
ODD_IMAGES = SHARED / "odd_images"

# Height and width of those that are whole, part of the reason for those that are not.
ODD = {
    "broken.png": "PNG data is damaged",
    "broken_data_stream.png": "PNG data is damaged",
    "decompression_bomb.gif": "exceeds limit",
    "empty_0_bytes_like_PetImages_Cat_666.jpg": "empty",
    "hopper.gif": (128, 128),
    "hopper.jpg": (128, 128),
    "hopper.webp": (128, 128),
    "hopper_gray.jpg": (128, 128),
    "hopper_orientation_3.jpg": (128, 128),
    "hopper_orientation_6.jpg": (128, 128),
    "hopper_orientation_8.jpg": (128, 128),
    "invalid-exif.jpg": (200, 200),
    "iss634.gif": (245, 245),
    "l_trns.png": (64, 64),
    "orientation_rectangle.jpg": (2, 1),
    "oxfordpet_Abyssinian_34.jpg": (202, 250),
    "oxfordpet_Abyssinian_5.jpg": (150, 200),
    "p_trns_single.png": (64, 64),
    "pil123rgba.png": (150, 162),
    "pil_sample_cmyk.jpg": (100, 100),
    "pngsuite_basi0g16.png": (32, 32),
    "pngsuite_basn4a16.png": (32, 32),
    "synthetic_cat.7_truncated_at_60pct.jpg": "truncated",
    "synthetic_text_named.jpg": "the content is HTML, not an image",
    "truncated_jpeg.jpg": "truncated",
    "zero_width.gif": "GIF data is damaged",
}


def picture(height=60, width=90, channels=3, seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(
        0, 256, (height, width, channels), np.uint8
    )
    return cv2.GaussianBlur(noise, (0, 0), 2).reshape(height, width, channels)


def encode(image, kind: str, **options) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(rows: list[bytes], width: int, depth: int, color: int, trns=b"") -> bytes:
    """Returns a PNG of unfiltered rows, with what Pillow cannot write."""

    def chunk(name, body):
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [chunk(b"IHDR", header), chunk(b"tRNS", trns) if trns else b""]
    chunks += [chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def big_endian(*values) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_kinds_give_the_pixels_back(kind):
    np.testing.assert_array_equal(decode(encode(picture(), kind)), picture())


def test_lossless_webp_gives_the_pixels_back():
    data = encode(picture(), "WEBP", lossless=True)
    np.testing.assert_array_equal(decode(data), picture())


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_is_what_pillow_decodes(progressive, subsampling):
    data = encode(picture(), "JPEG", progressive=progressive, subsampling=subsampling)
    expected = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(decode(data) - expected).max() <= 2
    assert decode(data).flags.c_contiguous


def test_grey_jpeg_has_three_equal_channels():
    image = decode(encode(Image.fromarray(picture()).convert("L"), "JPEG"))
    assert image.shape == (60, 90, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_jpeg_that_is_mid_grey_at_its_end_is_whole():
    grey = np.full((40, 40, 3), 128, np.uint8)
    np.testing.assert_array_equal(decode(encode(grey, "JPEG")), grey)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(30, 50), kind, exif=exif)
    stored = Image.open(io.BytesIO(data))
    expected = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    assert expected.shape == ((30, 50, 3) if orientation < 5 else (50, 30, 3))
    image = decode(data)
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() <= 2


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 99, 0),
    ],
)
def test_bad_exif_is_no_harm(exif):
    np.testing.assert_array_equal(
        decode(encode(picture(), "JPEG", exif=exif)), decode(encode(picture(), "JPEG"))
    )
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode(encode(cmyk, "JPEG", exif=exif)).shape == (8, 8, 3)


def test_trailing_bytes_are_no_harm():
    data = encode(picture(), "JPEG")
    for tail in (b"hello" * 99, data, b"\xff\xd9", b"\0" * 64):
        np.testing.assert_array_equal(decode(data + tail), decode(data))


def test_cmyk_jpeg_of_adobe_is_not_inverted():
    # Pillow writes CMYK as Adobe does: inverted, with an Adobe marker.
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(decode(data) - np.array([255, 0, 0])).max() <= 3


def test_palette_and_one_bit():
    palette = Image.fromarray(picture()).quantize(32)
    expected = np.asarray(palette.convert("RGB"))
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode(encode(palette, kind)), expected)
    bits = Image.new("1", (9, 5))
    bits.putpixel((8, 4), 1)
    image = decode(encode(bits, "PNG"))
    assert image[4, 8].tolist() == [255, 255, 255]
    assert image.sum() == 3 * 255


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 20, 30)])
def test_transparency_is_composited_over_the_background(background):
    over = np.array(background)
    rgba = Image.new("RGBA", (4, 4), (200, 100, 0, 51))
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = decode(encode(rgba, kind, **options), background=background)
        expected = 0.2 * np.array([200, 100, 0]) + 0.8 * over
        assert np.abs(image - expected).max() <= 1

    grey_alpha = Image.new("LA", (4, 4), (200, 0))
    assert (decode(encode(grey_alpha, "PNG"), background=background) == over).all()

    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.putpixel((0, 0), 0)
    for kind in ("PNG", "GIF"):
        image = decode(encode(palette, kind, transparency=0), background=background)
        assert image[0, 0].tolist() == list(background)
        assert image[1, 1].tolist() == [9, 8, 7]
    image = decode(
        encode(palette, "PNG", transparency=b"\0\x80"), background=background
    )
    assert np.abs(image[1, 1] - (np.array([9, 8, 7]) + over) / 2).max() <= 1

    grey = encode(Image.new("L", (4, 4), 77), "PNG", transparency=77)
    assert (decode(grey, background=background) == over).all()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png([big_endian(1000, 40000)], 2, 16, 0), [[4, 4, 4], [156, 156, 156]]),
        (png([big_endian(0, 65535)], 2, 16, 0), [[0, 0, 0], [255, 255, 255]]),
        (
            png([big_endian(1000, 40000)], 2, 16, 0, trns=big_endian(1000)),
            [[255, 255, 255], [156, 156, 156]],
        ),
        (png([big_endian(1000, 40000, 65535)], 1, 16, 2), [[4, 156, 255]]),
        (
            png([big_endian(1, 2, 3)], 1, 16, 2, trns=big_endian(1, 2, 3)),
            [[255, 255, 255]],
        ),
        (png([big_endian(25700, 65535)], 1, 16, 4), [[100, 100, 100]]),
        (png([big_endian(0, 25700, 65535, 0)], 1, 16, 6), [[255, 255, 255]]),
        (png([big_endian(0, 25700, 65535, 32768)], 1, 16, 6), [[127, 177, 255]]),
    ],
)
def test_sixteen_bits_are_rounded_to_eight(data, expected):
    assert decode(data).tolist() == [expected]


def test_sixteen_bit_grey_tiff_is_rounded_to_eight():
    image = Image.fromarray(np.array([[0, 1000, 40000, 65535]], np.uint16))
    assert decode(encode(image, "TIFF"))[0, :, 0].tolist() == [0, 4, 156, 255]


def test_float_samples_are_refused():
    with pytest.raises(ValueError, match="32-bit samples"):
        decode(encode(Image.new("F", (4, 4)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(kind):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime", "blue")]
    options = {} if kind == "GIF" else {"lossless": True}
    data = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=9, **options
    )
    assert (decode(data) == [255, 0, 0]).all()


def test_nothing_and_no_image():
    with pytest.raises(ValueError, match=r"empty \(0 bytes\)"):
        decode(b"")
    with pytest.raises(ValueError, match="none of JPEG, PNG"):
        decode(b"this is a text, named .jpg\n")
    with pytest.raises(ValueError, match="truncated"):
        decode(b"\xff\xd8\xff\xd9")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        decode_file(tmp_path / "none.jpg")
    (tmp_path / "some.png").write_bytes(encode(picture(), "PNG"))
    np.testing.assert_array_equal(decode_file(tmp_path / "some.png"), picture())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_a_cut_file_is_refused_or_whole(kind, options):
    # PNG and GIF end with bytes that say nothing but that this is the end, BMP with
    # those that fill its last row up to a multiple of four.
    harmless = {"PNG": 4, "GIF": 2, "BMP": 2}.get(kind, 0)
    data = encode(picture(), kind, **options)
    whole = decode(data)
    step = max(1, len(data) // 40)
    for length in [*range(0, len(data), step), *range(len(data) - 8, len(data))]:
        if length < len(data) - harmless:
            with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
                decode(data[:length])
        else:
            np.testing.assert_array_equal(decode(data[:length]), whole)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}],
)
def test_jpeg_cut_but_with_an_end_marker_is_refused(mode, options):
    data = encode(Image.fromarray(picture(160, 200)).convert(mode), "JPEG", **options)
    assert decode(data).shape == (160, 200, 3)
    for share in (0.3, 0.5, 0.7, 0.9, 0.97):
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            decode(data[: int(share * len(data))] + b"\xff\xd9")


def test_every_flipped_bit_of_a_png_is_noticed():
    data = encode(picture(), "PNG")
    rng = random.Random(0)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match=r"PNG|none of"):
            decode(bytes(damaged))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_damaged_files_raise_nothing_but_value_errors(kind):
    data = encode(picture(), kind)
    rng = random.Random(1)
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        try:
            image = decode(bytes(damaged))
        except ValueError:
            continue
        assert image.dtype == np.uint8
        assert image.shape[-1] == 3


def test_size_is_judged_from_the_header(monkeypatch):
    huge = png([b"\0"], 1, 8, 0)
    body = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    huge = huge[:12] + body + struct.pack(">I", zlib.crc32(body)) + huge[33:]
    with pytest.raises(ValueError, match=r"60000 x 60000 pixels are more than"):
        decode(huge)
    jpeg = bytearray(encode(picture(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(ValueError, match=r"65000 x 65000 pixels are more than"):
        decode(bytes(jpeg))
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60, 0)
    with pytest.raises(ValueError, match="no pixels: 0 x 60"):
        decode(bytes(jpeg))
    monkeypatch.setattr(pillow, "MAX_PIXELS", 60 * 90)
    assert decode(encode(picture(), "PNG")).shape == (60, 90, 3)


def test_process_wide_settings_of_pillow_are_left_alone():
    assert Image.MAX_IMAGE_PIXELS == 89478485


def test_odd_images():
    if not ODD_IMAGES.is_dir():
        pytest.skip("the folder of odd images is not there")
    assert {path.name for path in ODD_IMAGES.iterdir()} == set(ODD)
    for name, outcome in ODD.items():
        if isinstance(outcome, str):
            with pytest.raises(ValueError, match=outcome):
                decode_file(ODD_IMAGES / name)
        else:
            assert decode_file(ODD_IMAGES / name).shape == (*outcome, 3)


def test_photographs_are_all_whole():
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("the folder of photographs is not there")
    paths = sorted(PHOTOGRAPHS.rglob("*.jpg"))[::15]
    assert len(paths) >= 100
    for path in paths:
        expected = np.asarray(Image.open(io.BytesIO(path.read_bytes()))).astype(int)
        assert np.abs(decode_file(path) - expected).max() <= 2
