"""Compares image pyramids with OpenCV."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.imaging.pyramids import gaussian_down, gaussian_pyramid
from fpn_jax.pyramid import level_size

SIZES = [(8, 12), (7, 9), (13, 6), (5, 2), (3, 1), (1, 1), (2, 2)]


def photographs(size, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_gaussian_down_equals_opencv(size):
    x = photographs(size)
    actual = gaussian_down(jnp.asarray(x))
    # cv2 drops a last axis of length 1, and takes one image at a time.
    expected = np.stack([cv2.pyrDown(image).reshape(actual.shape[1:]) for image in x])
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES[:3])
def test_gaussian_pyramid_equals_opencv_at_every_scale(size):
    x = photographs(size)
    pyramid = gaussian_pyramid(jnp.asarray(x), 3)
    assert list(pyramid) == [0, 1, 2]
    expected = x
    for level, actual in pyramid.items():
        assert actual.shape == (2, *level_size(size, level), 3)
        np.testing.assert_allclose(actual, expected, atol=1e-6)
        expected = np.stack([cv2.pyrDown(image) for image in expected])


def test_a_pyramid_of_one_scale_is_the_input():
    x = jnp.asarray(photographs((4, 4)))
    assert gaussian_pyramid(x, 1)[0] is x
    with pytest.raises(ValueError, match="num_scales is 0"):
        gaussian_pyramid(x, 0)


def test_a_constant_image_stays_constant():
    np.testing.assert_allclose(gaussian_down(jnp.full((1, 5, 7, 1), 3.0)), 3.0)


def test_output_has_the_input_type_but_sums_are_float32():
    x = photographs((9, 9))
    actual = gaussian_down(jnp.asarray(x, jnp.bfloat16))
    assert actual.dtype == jnp.bfloat16
    expected = gaussian_down(jnp.asarray(x))
    assert np.abs(actual - expected).max() < 2e-2 * np.abs(expected).max()


def test_gradient_sums_to_the_number_of_output_pixels():
    x = jnp.asarray(photographs((6, 5)))
    gradient = jax.grad(lambda x: gaussian_down(x).sum())(x)
    # The weights of every output pixel sum to 1.
    np.testing.assert_allclose(gradient.sum(), 2 * 3 * 3 * 3, rtol=1e-5)
    assert jnp.isfinite(gradient).all()
