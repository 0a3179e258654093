"""Colour operations beside independent implementations, and their identities."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from fpn_jax.data import colours, movements

SIZES = [(40, 50), (33, 1), (1, 5), (2, 2), (3, 3)]


def picture(size, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (7, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize(size[::-1], 3))


def largest_difference(ours, theirs):
    return np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max()


@pytest.mark.parametrize("size", SIZES)
def test_equalize_is_that_of_pillow(size):
    image = picture(size)
    theirs = ImageOps.equalize(Image.fromarray(image))
    np.testing.assert_array_equal(colours.equalize(image), theirs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [0, 0.5, 1, 1.9])
def test_sharpness_is_that_of_pillow_within_rounding(size, factor):
    image = picture(size)
    theirs = ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor)
    assert largest_difference(colours.adjust_sharpness(image, factor), theirs) <= 1


@pytest.mark.parametrize("shift", [-0.5, -0.3, 0.0, 0.1, 0.5])
def test_hue_is_that_of_the_standard_library(shift):
    image = picture((12, 9))
    turned = [
        [
            colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
            for hue, saturation, value in (colorsys.rgb_to_hsv(*p) for p in row)
        ]
        for row in (image / 255).tolist()
    ]
    theirs = np.rint(np.array(turned) * 255)
    assert largest_difference(colours.adjust_hue(image, shift), theirs) <= 1


IDENTITIES = {
    "brightness": lambda image: colours.adjust_brightness(image, 1),
    "contrast": lambda image: colours.adjust_contrast(image, 1),
    "saturation": lambda image: colours.adjust_saturation(image, 1),
    "sharpness": lambda image: colours.adjust_sharpness(image, 1),
    "hue": lambda image: colours.adjust_hue(image, 0),
    "whole turn of the hue": lambda image: colours.adjust_hue(image, 1),
    "solarize": lambda image: colours.solarize(image, 0),
    "posterize": lambda image: colours.posterize(image, 0),
    "rotate": lambda image: movements.rotate(image.shape[:2], 0).image(image),
    "shear": lambda image: movements.shear(image.shape[:2], 0, 0).image(image),
    "translate": lambda image: movements.translate(image.shape[:2], 0, 0).image(image),
    "resize": lambda image: movements.resize(image, *image.shape[:2]),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_change_by_nothing_is_the_identity(name):
    image = picture((41, 50), seed=2)
    np.testing.assert_array_equal(IDENTITIES[name](image), image)
