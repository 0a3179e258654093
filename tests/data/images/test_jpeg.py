"""JPEGs that a random crop decodes, as small as it needs them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from fpn_jax.data import augmentation, crops, movements, pipeline
from fpn_jax.data.images import decode
from fpn_jax.data.records import BadRecord
from fpn_jax.data.sources.folder import FolderSource


def picture(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(
        cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX
    )


def encode(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def truncated(data):
    """Ends early, but has the marker of an end."""
    return data[: int(0.7 * len(data))] + b"\xff\xd9"


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(64, 96), (97, 131), (8, 8)])
def test_a_reduced_image_is_the_mean_of_its_squares(size, reduction):
    encoded = decode.open_encoded(encode(picture(*size)))
    assert encoded.shape == (*size, 3)
    small = encoded.decode(reduction=reduction, quick=True)
    height, width = (-(-side // reduction) for side in size)
    assert small.shape == (height, width, 3)
    exact = encoded.decode()
    whole = [side // reduction for side in size]
    means = exact[: whole[0] * reduction, : whole[1] * reduction].reshape(
        whole[0], reduction, whole[1], reduction, 3
    )
    difference = small[: whole[0], : whole[1]] - means.mean((1, 3))
    assert np.abs(difference).mean() < 3


def test_exact_decoding_is_opencvs():
    data = encode(picture(97, 131), subsampling=2)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decode.decode(data), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_known_before_and_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = decode.open_encoded(encode(picture(30, 50), exif=exif))
    assert encoded.shape == encoded.decode().shape
    halves = tuple(side // 2 for side in encoded.shape[:2])
    assert encoded.decode(reduction=2).shape[:2] == halves


@pytest.mark.parametrize("image_size", [10, 20, 40, 80])
@pytest.mark.parametrize("box", [(0, 0, 160, 200), (80, 24, 80, 88), (8, 120, 152, 80)])
def test_a_crop_of_an_encoded_image_is_that_of_its_pixels(box, image_size):
    data = encode(picture(160, 200))
    size = image_size, image_size
    made = []
    for image in (decode.open_encoded(data), decode.decode(data)):
        reduction = movements.reduction_for(image, box, image_size)
        made.append(movements.Crop((160, 200), size, box, reduction).image(image))
    # Chroma is repeated instead of interpolated; a wrong box differs by 30.
    assert np.abs(made[0].astype(int) - made[1]).mean() < 5


def test_a_box_between_pixels_stays_inside_and_near():
    image = np.broadcast_to(np.arange(160, dtype=np.uint8)[:, None, None], (160, 99, 3))
    encoded = decode.open_encoded(encode(image))
    for top, height in [(1, 159), (157, 3), (3, 41), (100, 60)]:
        box = top, 40, height, 59
        reduction = movements.reduction_for(encoded, box, 20)
        rows = movements.Crop((160, 99), (20, 20), box, reduction).cut(encoded)
        assert rows.shape[0] >= 1
        assert abs(rows.mean() - (top + (height - 1) / 2)) < 4


def test_no_more_is_decoded_than_a_crop_needs(monkeypatch):
    asked = []

    def spy(self, *, reduction, quick):
        asked.append(reduction)
        return plain(self, reduction=reduction, quick=quick)

    plain = decode.Encoded.decode
    monkeypatch.setattr(decode.Encoded, "decode", spy)
    encoded = decode.open_encoded(encode(picture(160, 160)))
    for side, expected in [(160, 8), (159, 4), (80, 4), (79, 2), (40, 2), (39, 1)]:
        box = 160 - side, 160 - side, side, side
        reduction = movements.reduction_for(encoded, box, 20)
        cut = movements.Crop((160, 160), (20, 20), box, reduction).cut(encoded)
        assert asked.pop() == expected
        assert min(cut.shape[:2]) >= 20 or side < 40


def test_an_unusual_jpeg_keeps_its_size():
    buffer = io.BytesIO()
    Image.fromarray(picture(64, 80)).convert("CMYK").save(buffer, "JPEG")
    encoded = decode.open_encoded(buffer.getvalue())
    assert encoded.decode(reduction=4, quick=True).shape == (64, 80, 3)
    crop = augmentation.Compose((crops.RandomResizedCrop(16),))
    cropped = crop({"image": encoded}, np.random.default_rng(0))["image"]
    assert cropped.shape == (16, 16, 3)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_damage_is_noticed_in_a_reduced_image(options, reduction):
    data = truncated(encode(picture(160, 200), **options))
    with pytest.raises(decode.Undecodable, match=r"truncated|damaged"):
        decode.open_encoded(data).decode(reduction=reduction, quick=True)


def test_bytes_too_many_are_no_damage():
    data = encode(picture(64, 64))
    oddity = data[:-2] + bytes(range(1, 100)) + data[-2:]
    np.testing.assert_array_equal(decode.decode(oddity), decode.decode(data))
    small = decode.open_encoded(oddity).decode(reduction=2, quick=True)
    assert small.shape == (32, 32, 3)


@pytest.fixture
def photographs(tmp_path):
    for name in ("cat", "dog"):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for number in range(4):
            data = encode(picture(40, 50 + number))
            if (name, number) == ("dog", 2):
                data = truncated(data)
            (folder / f"{number}.jpg").write_bytes(data)
        (tmp_path / "validate" / name).mkdir(parents=True)
    return tmp_path


def batches(root, on_bad_file, encoded):
    return pipeline.train_batches(
        FolderSource(root, "train", encoded=encoded),
        augmentation.Compose((crops.RandomResizedCrop(16),)),
        global_batch_size=8,
        seed=0,
        options=pipeline.Options(on_bad_file=on_bad_file),
    )


def test_damage_that_a_crop_finds_is_named(photographs):
    made = batches(photographs, "stop", encoded=True)
    with pytest.raises(BadRecord, match=r"dog/2\.jpg: the JPEG data is damaged"):
        next(made)
    made.close()


def test_damage_that_a_crop_finds_is_skipped(photographs, capsys):
    found = []
    for encoded in (True, False):
        made = batches(photographs, "skip", encoded)
        batch = next(made)
        made.close()
        assert list(made.skipped) == [6]
        found.append((made.skipped, batch["index"].tolist()))
    assert found[0] == found[1]
    assert capsys.readouterr().err.count("dog/2.jpg") == 2
