import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from fpn_jax.data import colours

IMAGE = np.random.default_rng(0).integers(256, size=(24, 31, 3), dtype=np.uint8)


def constant(factor):
    """Returns a generator that draws the same number from every interval."""

    class Generator:
        def uniform(self, low, high):
            return low + factor * (high - low)

    return Generator()


def difference(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.4, 1.9])
@pytest.mark.parametrize(
    ("adjust", "enhance"),
    [
        (colours.adjust_brightness, ImageEnhance.Brightness),
        (colours.adjust_contrast, ImageEnhance.Contrast),
        (colours.adjust_saturation, ImageEnhance.Color),
        (colours.adjust_sharpness, ImageEnhance.Sharpness),
    ],
)
def test_adjustments_agree_with_pillow(adjust, enhance, factor):
    result = adjust(IMAGE, factor)
    expected = np.asarray(enhance(Image.fromarray(IMAGE)).enhance(factor))
    # Pillow leaves the outermost pixels as sharp as they are.
    inner = np.s_[1:-1, 1:-1] if enhance is ImageEnhance.Sharpness else np.s_[:]
    assert difference(result[inner], expected[inner]) <= 2
    if factor == 1.0:
        np.testing.assert_array_equal(result, IMAGE)


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.1, 0.25, 0.5])
def test_hue_agrees_with_colorsys(shift):
    result = colours.adjust_hue(IMAGE, shift)
    steps = round(256 * shift) / 256
    errors = []
    for pixel, turned in zip(IMAGE.reshape(-1, 3), result.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = colorsys.hsv_to_rgb((hue + steps) % 1, saturation, value)
        # Eight bits of hue are 1.4 degrees, a step of six levels.
        errors.append(np.abs(turned - 255 * np.array(expected)))
    assert np.max(errors) <= 9
    assert np.mean(errors) <= 0.8


def test_hue_leaves_grey_alone():
    grey = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    np.testing.assert_array_equal(colours.adjust_hue(grey, 0.3), grey)


def test_color_jitter_is_its_adjustments_in_order():
    jitter = colours.ColorJitter(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)
    expected = colours.adjust_brightness(IMAGE, 1.4)
    expected = colours.adjust_contrast(expected, 1.3)
    expected = colours.adjust_saturation(expected, 1.2)
    expected = colours.adjust_hue(expected, 0.1)
    np.testing.assert_array_equal(jitter(IMAGE, constant(1.0)), expected)


def test_color_jitter_never_draws_a_negative_factor():
    jitter = colours.ColorJitter(brightness=3.0)
    np.testing.assert_array_equal(jitter(IMAGE, constant(0.0)), 0 * IMAGE)


def test_color_jitter_of_nothing_draws_nothing():
    assert colours.ColorJitter()(IMAGE, None) is IMAGE


def test_auto_contrast_agrees_with_pillow():
    dull = np.uint8(60 + IMAGE // 3)
    dull[..., 2] = 77
    result = colours.auto_contrast(dull)
    expected = ImageOps.autocontrast(Image.fromarray(dull))
    assert difference(result, expected) <= 1


@pytest.mark.parametrize("threshold", [0, 100, 256])
def test_solarize_agrees_with_pillow(threshold):
    result = colours.solarize(IMAGE, 256 - threshold)
    expected = ImageOps.solarize(Image.fromarray(IMAGE), threshold)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_posterize_agrees_with_pillow(bits):
    result = colours.posterize(IMAGE, 8 - bits)
    expected = ImageOps.posterize(Image.fromarray(IMAGE), bits)
    np.testing.assert_array_equal(result, expected)
