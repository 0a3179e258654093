import math
import pickle

import numpy as np
import pytest
from PIL import Image

from fpn_jax.data import augmentation, colours, crops
from fpn_jax.data.pictures import Picture
from fpn_jax.errors import InputError

IMAGE = np.random.default_rng(0).integers(256, size=(24, 31, 3), dtype=np.uint8)
STACK = {
    "crop_scale": (0.25, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    "flip": 0.5,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "randaugment_layers": 2,
    "randaugment_magnitude": 9,
    "erasing": 0.25,
}


def applied(name, image, amount):
    """Returns what an operation of RandAugment makes of an image."""
    return augmentation.OPERATIONS[name].apply(image, amount)[0]


def test_table_holds_the_fourteen_operations_of_the_paper():
    assert set(augmentation.OPERATIONS) == {
        *("identity", "auto_contrast", "equalize", "rotate", "solarize", "color"),
        *("posterize", "contrast", "brightness", "sharpness", "shear_x", "shear_y"),
        *("translate_x", "translate_y"),
    }


@pytest.mark.parametrize("name", augmentation.OPERATIONS)
def test_operation_keeps_shape_type_and_input(name):
    operation = augmentation.OPERATIONS[name]
    for size in [(24, 31), (1, 1), (1, 9), (5, 2)]:
        image = IMAGE[: size[0], : size[1]]
        before = image.copy()
        for amount in (operation.strongest, operation.strongest / 3, 0.0):
            result = applied(name, image, amount)
            assert result.shape == image.shape
            assert result.dtype == np.uint8
        np.testing.assert_array_equal(image, before)
    if name not in ("auto_contrast", "equalize"):
        np.testing.assert_array_equal(applied(name, IMAGE, 0.0), IMAGE)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    "name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]
)
def test_geometry_agrees_with_pillow(name, sign):
    y, x = np.mgrid[:41, :60] / 60
    image = np.stack([np.sin(4 * x), np.cos(3 * y), np.sin(3 * x + 2 * y)], -1)
    image = np.uint8(np.rint(127.5 + 120 * image))
    operation = augmentation.OPERATIONS[name]
    amount = sign * operation.strongest
    result = applied(name, image, amount)
    angle = math.radians(amount) if name == "rotate" else 0.0
    # Pillow asks where a point of the result comes from: the inverse map.
    backward = {
        "rotate": [math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)],
        "shear_x": [1, -amount, 0, 1],
        "shear_y": [1, 0, -amount, 1],
    }.get(name, [1, 0, 0, 1])
    shift = {"translate_x": (amount * 60, 0), "translate_y": (0, amount * 41)}
    shift_x, shift_y = shift.get(name, (0, 0))
    (a, b), (d, e) = backward[:2], backward[2:]
    # Pillow counts from the edge of the corner pixel: the centre is at (30, 20.5).
    c = 30 - a * 30 - b * 20.5 - shift_x
    f = 20.5 - d * 30 - e * 20.5 - shift_y
    pillow = Image.fromarray(image).transform(
        (60, 41),
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        Image.Resampling.BILINEAR,
        fillcolor=(128, 128, 128),
    )
    # The two treat the rim of the image differently, by one pixel.
    rim = np.abs(result.astype(int) - np.asarray(pillow)).max(-1) > 3
    assert rim.mean() < 0.05
    source = np.ones((41, 60, 3), np.uint8) * 255
    outside = (applied(name, source, amount) == 128).all(-1)
    assert outside.any()
    assert (result[outside] == 128).all()


def test_positive_amounts_turn_counterclockwise_and_move_right_and_down():
    delta = np.zeros((21, 21, 3), np.uint8)
    delta[10, 16] = 255

    def brightest(name, amount):
        moved = applied(name, delta, amount)
        moved = np.where(moved == 128, 0, moved)
        return np.unravel_index(moved[..., 0].argmax(), (21, 21))

    assert brightest("rotate", 90.0) == (4, 10)
    assert brightest("translate_x", -4 / 21) == (10, 12)
    assert brightest("translate_x", 4 / 21) == (10, 20)
    assert brightest("translate_y", 5 / 21) == (15, 16)
    assert brightest("shear_y", 0.5) == (13, 16)
    assert brightest("shear_x", 0.5) == (10, 16)


def test_randaugment_draws_every_operation_and_both_signs(monkeypatch):
    drawn = []

    def spy(name, operation):
        def recolour(image, amount):
            drawn.append((name, amount))
            return image

        return operation._replace(recolour=recolour, move=None)

    spies = tuple(spy(*item) for item in augmentation.OPERATIONS.items())
    monkeypatch.setattr(augmentation, "_DRAWN", spies)
    rng = np.random.default_rng(0)
    randaugment = augmentation.RandAugment(num_layers=3, magnitude=5)
    for _ in range(500):
        randaugment.move(Picture.of(IMAGE), rng)
    assert len(drawn) == 1500
    for name, operation in augmentation.OPERATIONS.items():
        amounts = [amount for drawn_name, amount in drawn if drawn_name == name]
        assert 60 < len(amounts) < 160  # 107 expected, standard deviation 10.
        half = operation.strongest / 2
        assert set(amounts) == ({half, -half} if operation.signed else {half})


def test_random_erasing_fills_one_box_of_the_asked_area():
    image = np.zeros((100, 80, 3), np.uint8)
    rng = np.random.default_rng(0)
    erasing = augmentation.RandomErasing(0.5, scale=(0.1, 0.2))
    shares = []
    for _ in range(400):
        result = erasing(image, rng)
        rows, columns = np.nonzero(result.any(-1))
        if rows.size:
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert rows.size / (height * width) > 0.99
            shares.append(height * width / 8000)
    assert len(shares) / 400 == pytest.approx(0.5, abs=0.1)
    assert min(shares) > 0.09
    assert max(shares) < 0.21
    assert np.mean(shares) == pytest.approx(0.15, abs=0.01)
    assert not image.any()


def test_erasing_changes_nothing_where_no_box_fits():
    pixel = np.zeros((1, 1, 3), np.uint8)
    erasing = augmentation.RandomErasing(1.0, scale=(0.02, 0.05))
    assert erasing(pixel, np.random.default_rng(0)) is pixel


@pytest.mark.parametrize("size", [(375, 500), (1, 1), (4097, 3), (3, 4097)])
def test_whole_stack_is_a_function_of_the_generator(size):
    image = np.random.default_rng(1).integers(256, size=(*size, 3), dtype=np.uint8)
    before = image.copy()
    stack = augmentation.build_train(32, **STACK)
    copy = pickle.loads(pickle.dumps(stack))
    results = []
    for seed in range(20):
        result = stack({"image": image}, np.random.default_rng(seed))["image"]
        assert result.shape == (32, 32, 3)
        assert result.dtype == np.uint8
        again = copy({"image": image}, np.random.default_rng(seed))["image"]
        np.testing.assert_array_equal(result, again)
        results.append(result.tobytes())
    assert len(set(results)) > 15
    np.testing.assert_array_equal(image, before)


def test_build_train_omits_transforms_of_strength_zero():
    full = augmentation.build_train(32, **STACK)
    assert full.transforms == (
        crops.RandomResizedCrop(32, (0.25, 1.0), (3 / 4, 4 / 3)),
        crops.HorizontalFlip(0.5),
        colours.ColorJitter(0.4, 0.4, 0.4, 0.1),
        augmentation.RandAugment(2, 9),
        augmentation.RandomErasing(0.25),
    )
    zero = ("flip", "brightness", "contrast", "saturation", "hue")
    off = {name: 0 for name in (*zero, "randaugment_layers", "erasing")}
    bare = augmentation.build_train(32, **STACK | off)
    assert bare.transforms == full.transforms[:1]
    only_hue = augmentation.build_train(32, **STACK | off | {"hue": 0.1})
    assert only_hue.transforms[1:] == (colours.ColorJitter(hue=0.1),)
    turned = augmentation.build_train(32, **STACK | off, rotation=20)
    assert turned.transforms == (augmentation.RandomRotation(20), *bare.transforms)


def test_rotation_turns_to_both_sides_by_every_angle_up_to_its_own():
    rotation = augmentation.RandomRotation(30)
    rng = np.random.default_rng(0)
    degrees = []
    for _ in range(400):
        moved = rotation.move(Picture.of(IMAGE), rng)
        assert moved.size == IMAGE.shape[:2]
        matrix = moved.placement.matrix
        degrees.append(math.degrees(math.atan2(matrix[0, 1], matrix[0, 0])))
    assert -30 <= min(degrees) < -28
    assert 28 < max(degrees) <= 30
    assert abs(np.mean(degrees)) < 3  # The standard deviation of the mean is 0.9.


def test_build_eval_is_the_center_crop():
    assert augmentation.build_eval(64, 0.9) == crops.ResizeAndCenterCrop(64, 0.9)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("flip", -0.1, r"HorizontalFlip.probability is -0.1.*\[0, 1\]"),
        ("brightness", -1, "ColorJitter.brightness is -1"),
        ("contrast", math.nan, "ColorJitter.contrast is nan"),
        ("saturation", "high", "ColorJitter.saturation is 'high'"),
        ("hue", 0.6, r"ColorJitter.hue is 0.6.*\[0, 0.5\]"),
        ("randaugment_layers", -1, "RandAugment.num_layers is -1"),
        ("randaugment_layers", 1.5, "RandAugment.num_layers is 1.5"),
        ("randaugment_magnitude", 11, r"RandAugment.magnitude is 11.*\[0, 10\]"),
        ("erasing", 2, "RandomErasing.probability is 2"),
        ("rotation", 181, "RandomRotation.degrees is 181"),
        ("crop_scale", (0.5, 2.0), "RandomResizedCrop.scale"),
    ],
)
def test_refused_values_are_named(name, value, words):
    with pytest.raises(InputError, match=words):
        augmentation.build_train(32, **STACK | {name: value})


def test_magnitude_is_checked_even_where_randaugment_is_left_out():
    off = {"randaugment_layers": 0, "randaugment_magnitude": -3}
    with pytest.raises(InputError, match="magnitude is -3"):
        augmentation.build_train(32, **STACK | off)
