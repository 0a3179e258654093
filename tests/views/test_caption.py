import numpy as np
import pytest

from fpn_jax.views.caption import BACKGROUND, FILL, caption


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(128, 128), (400, 224), (2000, 1500), (3, 500)])
def test_the_caption_is_below_the_unchanged_picture(size):
    image = picture(*size)
    before = image.copy()
    shown = caption(image, "cat", 0.75)
    assert shown.dtype == np.uint8
    assert shown.shape[1:] == image.shape[1:]
    np.testing.assert_array_equal(shown[: size[0]], before)
    np.testing.assert_array_equal(image, before)
    assert 20 <= len(shown) - size[0] <= 120


@pytest.mark.parametrize("side", [1, 32, 64, 127])
def test_a_small_picture_is_enlarged_by_a_whole_factor(side):
    image = picture(side, side)
    shown = caption(image, "cat", 0.75)
    factor = shown.shape[1] // side
    assert shown.shape[1] >= 128
    assert shown.shape[1] == factor * side
    np.testing.assert_array_equal(shown[: factor * side : factor, ::factor], image)


def test_a_narrow_picture_gets_a_legible_caption():
    image = picture(2000, 1)
    shown = caption(image, "cat", 0.5)
    assert shown.shape[1] == 128
    np.testing.assert_array_equal(shown[:2000, :1], image)
    assert (shown[:2000, 1:] == BACKGROUND).all()


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, 0), (0.25, 50), (1.0, 200), (1.5, 200), (np.nan, 0), (np.inf, 200)],
)
def test_the_bar_is_filled_up_to_the_probability(probability, expected):
    line = caption(picture(200, 200), "cat", probability)[200]
    assert (line == FILL).all(axis=1).sum() == expected
    assert (line[:expected] == FILL).all()


def test_the_caption_is_bright_text_on_a_dark_background():
    bars = [
        caption(np.full((224, 224, 3), value, np.uint8), "cat", 0.5)[224:]
        for value in (0, 128, 255)
    ]
    assert all((bar == bars[0]).all() for bar in bars)
    text = bars[0][4:]
    assert text.min() == min(BACKGROUND)
    assert text.max() == 255


def test_a_long_name_is_shortened_before_the_number():
    image = picture(128, 128)
    number, bar = (caption(image, name, 1.0)[130:] for name in ("", "w" * 1000))
    start = (number != BACKGROUND).any(axis=(0, 2)).argmax()
    assert start > 60
    assert (bar[:, : start - 2] != BACKGROUND).any()
    np.testing.assert_array_equal(bar[:, start - 2 :], number[:, start - 2 :])


@pytest.mark.parametrize("name", ["two\nlines", "\udcff", "猫", "a\u202eb", ""])
def test_any_name_can_be_drawn(name):
    assert caption(picture(64, 64), name, 0.5).shape[1] == 128


def test_a_name_stays_on_one_line():
    image = picture(128, 128)
    escaped = caption(image, "two\\nlines", 0.5)
    np.testing.assert_array_equal(caption(image, "two\nlines", 0.5), escaped)


def test_names_and_numbers_differ_in_the_caption():
    shown = [
        caption(picture(224, 224), name, probability)[228:]
        for name, probability in (("cat", 0.5), ("dog", 0.5), ("cat", 0.6))
    ]
    assert (shown[0] != shown[1]).any()
    assert (shown[0] != shown[2]).any()
