import io

import numpy as np
import pytest
from PIL import Image

from fpn_jax.data import crops, movements
from fpn_jax.data.images import decode
from fpn_jax.data.pictures import Picture


def encoded(image, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, exif=exif)
    return decode.open_encoded(buffer.getvalue())


def spot(height, width, x, y):
    """Returns a dark image with a bright disc, whose middle is at (x, y)."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(columns - x, rows - y)
    level = np.clip(9 - distance, 0, 1) * 235 + 10
    return np.repeat(np.uint8(level)[..., None], 3, axis=2)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_a_reduced_jpeg_has_its_sides_divided_and_rounded_up(reduction):
    for side in [*range(1, 41), 99, 100, 101, 375, 500]:
        # The shape decides what a placement believes that a decoder shows.
        image = encoded(np.zeros((side, 41, 3), np.uint8))
        shape = image.decode(reduction=reduction, quick=True).shape
        if side >= reduction:
            assert shape == (-(-side // reduction), -(-41 // reduction), 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_size", [16, 24, 32, 90])
def test_a_point_is_where_a_reduced_image_shows_it(image_size, orientation):
    rng = np.random.default_rng(orientation)
    crop = crops.RandomResizedCrop(image_size, (0.2, 1.0))
    seen, reduced, errors = 0, set(), []
    for _ in range(60):
        height, width = rng.integers(200, 420, 2)
        x, y = rng.uniform(40, width - 40), rng.uniform(40, height - 40)
        image = encoded(spot(height, width, x, y), orientation)
        upright = image.decode()
        bright = upright[..., 0].astype(float) - 10
        rows, columns = np.mgrid[: upright.shape[0], : upright.shape[1]] + 0.5
        bright[bright < 40] = 0
        point = np.array(
            [[(columns * bright).sum(), (rows * bright).sum(), bright.sum()]]
        )
        point /= bright.sum()
        picture = crop.move(Picture.of(image), rng)
        assert picture.image.shape == (image_size, image_size, 3)
        reduced.add(picture.steps[0].reduction)
        [(u, v, visible)] = picture.placement.points(point)
        scale = np.abs(picture.placement.matrix[[0, 1], [0, 1]]).max()
        if not visible or min(u, v, image_size - u, image_size - v) < 10 * scale:
            continue
        seen += 1
        bright = picture.image[..., 0].astype(float) - 10
        bright[bright < 40] = 0
        rows, columns = np.mgrid[:image_size, :image_size] + 0.5
        found = np.array([(columns * bright).sum(), (rows * bright).sum()])
        errors.append(np.abs(found / bright.sum() - (u, v)).max())
    assert seen > 15
    assert max(reduced) >= {16: 8, 24: 8, 32: 8, 90: 2}[image_size]
    # A partial last pixel comes first where Exif turns the image round.
    assert max(errors) < (0.45 if orientation == 1 else 1.0)


def test_a_reduced_crop_knows_the_rounded_box():
    image = encoded(np.zeros((100, 160, 3), np.uint8))
    box = 13, 21, 57, 83
    crop = movements.Crop((100, 160), (10, 10), box, 4)
    # In quarters the image is 25 × 40, and the box 14 × 21 at (3, 5).
    corners = np.array([(4 * 5, 4 * 3, 1), (4 * (5 + 21), 4 * (3 + 14), 1)])
    np.testing.assert_allclose(
        corners @ crop.matrix.T, [(0, 0, 1), (10, 10, 1)], atol=1e-9
    )
    assert crop.cut(image).shape == (14, 21, 3)
    # Rows 94 to 100 are 23.5 to 25: both numbers round up, and the box moves inside.
    last = movements.Crop((100, 160), (10, 10), (94, 0, 6, 160), 4)
    assert last.cut(image).shape == (2, 40, 3)
    np.testing.assert_allclose(last.matrix @ (0, 92, 1), (0, 0, 1), atol=1e-9)


def test_only_a_plain_encoded_image_is_reduced():
    box, pixels = (0, 0, 80, 80), np.zeros((80, 80, 3), np.uint8)
    assert movements.reduction_for(encoded(pixels), box, 10) == 8
    assert movements.reduction_for(encoded(pixels), box, 41) == 1
    assert movements.reduction_for(pixels, box, 10) == 1
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(buffer, "JPEG")
    unusual = decode.open_encoded(buffer.getvalue())
    assert movements.reduction_for(unusual, box, 10) == 1


def test_other_movements_take_an_encoded_image_too():
    image = encoded(spot(60, 90, 30, 30))
    for place in (
        movements.Flip((60, 90)),
        movements.Pad((60, 90), (90, 90), (3, 0)),
        movements.rotate((60, 90), 9),
    ):
        np.testing.assert_array_equal(place.image(image), place.image(image.decode()))


def test_padding_is_grey_around_the_image():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    padded = movements.Pad((2, 3), (5, 4), (2, 1)).image(image)
    np.testing.assert_array_equal(padded[2:4, 1:], image)
    padded[2:4, 1:] = 128
    assert (padded == 128).all()
