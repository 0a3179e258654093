import io
import math
import pickle
from concurrent import futures

import cv2
import numpy as np
import pytest
from PIL import Image

from fpn_jax.data import augmentation, crops, movements
from fpn_jax.data.images import decode
from fpn_jax.data.records import OF_BOXES
from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.errors import InputError

ODD_SIZES = [(1, 1), (1, 7), (3, 4097), (4097, 3), (2, 2), (375, 500), (64, 64)]


def smooth_image(height, width):
    """Returns an image of low frequencies, on which all good filters agree."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(5 * x + 3 * y), np.cos(4 * y - x), np.sin(7 * x * y + 1)]
    return np.uint8(np.rint(127.5 + 110 * np.stack(waves, -1)))


def evaluated(transform, image):
    return transform({"image": image})["image"]


def trained(transform, image, rng):
    return augmentation.Compose((transform,))({"image": image}, rng)["image"]


def noise_image(height, width):
    return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype="u1")


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
@pytest.mark.parametrize("image_size", [1, 17, 64])
def test_every_size_becomes_the_image_size(height, width, image_size):
    image = noise_image(height, width)
    before = image.copy()
    rng = np.random.default_rng(1)
    for result in (
        evaluated(crops.ResizeAndCenterCrop(image_size), image),
        evaluated(crops.ResizeAndCenterCrop(image_size, 1.0), image),
        trained(crops.RandomResizedCrop(image_size), image, rng),
    ):
        assert result.shape == (image_size, image_size, 3)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_one_colour_stays_one_colour(height, width):
    image = np.full((height, width, 3), (3, 128, 255), np.uint8)
    rng = np.random.default_rng(1)
    for result in (
        evaluated(crops.ResizeAndCenterCrop(16), image),
        trained(crops.RandomResizedCrop(16), image, rng),
    ):
        assert (result == (3, 128, 255)).all()


def test_image_of_the_right_size_passes_unchanged():
    image = noise_image(32, 32)
    result = evaluated(crops.ResizeAndCenterCrop(32, 1.0), image)
    np.testing.assert_array_equal(result, image)
    whole = crops.RandomResizedCrop(32, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(
        trained(whole, image, np.random.default_rng(0)), image
    )


def test_center_crop_alone_takes_the_middle():
    image = noise_image(40, 60)
    result = evaluated(crops.ResizeAndCenterCrop(35, 0.875), image)  # Short side is 40.
    np.testing.assert_array_equal(result, image[2:37, 12:47])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (90, 130)])
def test_center_crop_is_resize_then_crop(height, width):
    image = smooth_image(height, width)
    result = evaluated(crops.ResizeAndCenterCrop(128), image)
    scale = 146 / min(height, width)
    size = round(width * scale), round(height * scale)
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    # Cut in whole pixels of the source, the crop may lie half such a pixel aside.
    aside = 0.5 * max(1, scale) * np.abs(np.diff(resized.astype(int), axis=1)).max()
    top, left = (size[1] - 128) // 2, (size[0] - 128) // 2
    expected = resized[top : top + 128, left : left + 128]
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 2 + 2 * aside
    assert difference.mean() < 1.5


def test_resize_averages_an_axis_that_shrinks_while_the_other_grows():
    image = noise_image(4, 100)
    result = movements.resize(image, 8, 10)
    columns = image.reshape(4, 10, 10, 3).mean(2)
    expected = cv2.resize(columns, (10, 8), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(result, expected, atol=1.01)


def test_boxes_are_uniform_in_area_and_log_ratio_and_inside():
    rng = np.random.default_rng(0)
    boxes = np.array(
        [
            crops.sample_box(rng, (1000, 1000), (0.1, 0.5), (0.5, 2.0))
            for _ in range(4000)
        ]
    )
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 1000).all()
    assert (left + width <= 1000).all()
    # At half the area and ratio 2 a box just fits, so that no draw is refused here.
    share = np.sort((height * width / 1e6 - 0.1) / 0.4)
    log_ratio = np.sort((np.log2(width / height) + 1) / 2)
    place = np.sort((top + 0.5) / (1001 - height))
    uniform = (np.arange(4000) + 0.5) / 4000
    for values in (share, log_ratio, place):
        # The Kolmogorov-Smirnov distance and its one-percent bound.
        assert np.abs(values - uniform).max() < 1.63 / math.sqrt(4000)


def test_box_that_never_fits_gives_the_center_crop():
    rng = np.random.default_rng(0)
    assert crops.sample_box(rng, (3, 4097), (1.0, 1.0), (0.75, 1.33)) is None
    image = noise_image(3, 4097)
    crop = crops.RandomResizedCrop(4, scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3))
    expected = cv2.resize(image[:, 2046:2050], (4, 4), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(trained(crop, image, rng), expected)
    turned = trained(crop, np.ascontiguousarray(image.transpose(1, 0, 2)), rng)
    np.testing.assert_allclose(turned, expected.transpose(1, 0, 2), atol=1)


def test_random_crop_shows_the_box_that_was_drawn():
    image = smooth_image(120, 160)
    crop = crops.RandomResizedCrop(32)
    result = trained(crop, image, np.random.default_rng(5))
    top, left, height, width = crops.sample_box(
        np.random.default_rng(5), (120, 160), crop.scale, crop.ratio
    )
    box = (left, top, left + width, top + height)
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.BOX, box)
    assert np.abs(result.astype(int) - np.asarray(expected)).max() <= 3


def test_flip_mirrors_columns_as_often_as_asked():
    image = noise_image(5, 6)
    rng = np.random.default_rng(0)
    always, never = crops.HorizontalFlip(1.0), crops.HorizontalFlip(0.0)
    np.testing.assert_array_equal(trained(always, image, rng), image[:, ::-1])
    np.testing.assert_array_equal(trained(never, image, rng), image)
    often = crops.HorizontalFlip(0.25)
    flips = sum((trained(often, image, rng) != image).any() for _ in range(2000))
    assert flips / 2000 == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    "transform", [crops.RandomResizedCrop(16), crops.HorizontalFlip()]
)
def test_same_generator_same_image_pickled_or_in_threads(transform):
    image = noise_image(40, 50)

    def apply(seed):
        return trained(transform, image, np.random.default_rng(seed))

    expected = [apply(seed) for seed in range(32)]
    with futures.ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(apply, range(32))), expected)
    copy = pickle.loads(pickle.dumps(transform))
    assert copy == transform
    result = trained(copy, image, np.random.default_rng(7))
    np.testing.assert_array_equal(result, expected[7])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: crops.ResizeAndCenterCrop(0), "image_size is 0"),
        (lambda: crops.ResizeAndCenterCrop(9.5), "image_size is 9.5"),
        (lambda: crops.ResizeAndCenterCrop(8, 0.0), "crop_fraction is 0.0"),
        (lambda: crops.ResizeAndCenterCrop(8, 1.5), "crop_fraction is 1.5"),
        (lambda: crops.RandomResizedCrop(-1), "image_size is -1"),
        (lambda: crops.RandomResizedCrop(8, (0.0, 1.0)), r"scale is \(0.0, 1.0\)"),
        (lambda: crops.RandomResizedCrop(8, (0.5, 1.1)), r"scale is \(0.5, 1.1\)"),
        (lambda: crops.RandomResizedCrop(8, (0.9, 0.5)), "least first"),
        (lambda: crops.RandomResizedCrop(8, 0.5), "scale is 0.5"),
        (lambda: crops.RandomResizedCrop(8, ratio=(0, 1)), r"ratio is \(0, 1\)"),
        (lambda: crops.RandomResizedCrop(8, ratio=(1, math.inf)), r"\(1, inf\)"),
        (lambda: crops.Letterbox(0), r"Letterbox.image_size is 0; .* at least 1"),
        (lambda: crops.HorizontalFlip(1.01), r"probability is 1.01.*\[0, 1\]"),
        (lambda: crops.HorizontalFlip(math.nan), "probability is nan"),
        (lambda: crops.HorizontalFlip("often"), "probability is 'often'"),
    ],
)
def test_refused_values_are_named(build, words):
    with pytest.raises(InputError, match=words):
        build()


EVALUATIONS = [
    crops.ResizeAndCenterCrop(24),
    crops.ResizeAndCenterCrop(33, 1.0),
    crops.Letterbox(24),
    crops.Letterbox(33),
]


@pytest.mark.parametrize("transform", EVALUATIONS)
@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_an_evaluation_says_where_the_image_went(transform, height, width):
    image = noise_image(height, width)
    placement = transform.placement((height, width))
    assert placement.source_size == (height, width)
    assert placement.size == (transform.image_size, transform.image_size)
    np.testing.assert_array_equal(placement.image(image), evaluated(transform, image))
    assert pickle.loads(pickle.dumps(transform)).placement((height, width)) == placement


@pytest.mark.parametrize("transform", EVALUATIONS)
def test_an_evaluation_moves_every_field(transform):
    source = DrawnSource("test", 40)
    record = source[1] | {"mirrored": source.info.mirrored}
    placement, moved = transform.placement((40, 40)), transform(record)
    np.testing.assert_array_equal(moved["mask"], placement.mask(record["mask"]))
    np.testing.assert_array_equal(
        moved["landmarks"], placement.points(record["landmarks"])
    )
    boxes = placement.boxes(record["boxes"])
    np.testing.assert_array_equal(moved["boxes"], boxes.boxes)
    for name in OF_BOXES:
        np.testing.assert_array_equal(moved[name], record[name][boxes.kept])
    assert moved["dropped_boxes"] == boxes.dropped
    # Answers come back to the pixels of the image before.
    back = placement.inverse.boxes(boxes.boxes, min_visible=0).boxes
    if isinstance(transform, crops.Letterbox):
        np.testing.assert_allclose(back, record["boxes"], atol=1e-3)
    else:
        assert (back[:, :2] >= record["boxes"][:, :2] - 1e-3).all()
        assert (back[:, 2:] <= record["boxes"][:, 2:] + 1e-3).all()


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_a_letterbox_keeps_the_whole_image(height, width):
    white = np.full((height, width, 3), 255, np.uint8)
    moved = evaluated(crops.Letterbox(64), white)
    seen = (moved == 255).all(axis=-1)
    assert ((moved == 128).all(axis=-1) != seen).all()
    rows, columns = np.nonzero(seen)
    sides = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert max(sides) == 64
    expected = [max(1, 64 * side / max(height, width)) for side in (height, width)]
    np.testing.assert_allclose(sides, expected, atol=0.5)
    corners = np.array([(0, 0, 1), (width, height, 1)], np.float32)
    placement = crops.Letterbox(64).placement((height, width))
    assert placement.points(corners)[:, 2].tolist() == [1, 1]


def test_an_evaluation_decodes_exactly():
    buffer = io.BytesIO()
    Image.fromarray(smooth_image(160, 200)).save(buffer, "JPEG", quality=90)
    encoded = decode.open_encoded(buffer.getvalue())
    for transform in EVALUATIONS:
        np.testing.assert_array_equal(
            evaluated(transform, encoded), evaluated(transform, encoded.decode())
        )
