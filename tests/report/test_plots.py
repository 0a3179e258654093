import base64

import cv2
import numpy as np
import pytest

from fpn_jax.report import plots


def test_overlay_of_an_odd_sized_image_is_coloured_where_the_map_is():
    image = np.full((33, 50, 3), 128, np.uint8)
    heat = np.zeros((5, 7), np.float32)
    heat[0, 0], heat[4, 6] = 1.0, np.nan
    shown = plots.overlay(image, heat, level=3).astype(int)
    assert shown.shape == image.shape
    assert np.ptp(shown[-1, -1]) == 0
    assert np.ptp(shown[2, 2]) > 40
    with pytest.raises(ValueError, match=r"has \[5, 7\] cells"):
        plots.overlay(image, heat[:4], level=3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((400, 1000), (154, 384)), ((1, 2000), (1, 384)), ((1, 1), (1, 1))],
)
def test_a_data_uri_is_a_jpeg_of_at_most_384_pixels(size, expected):
    uri = plots.data_uri(np.full((*size, 3), (200, 10, 10), np.uint8))
    assert len(uri) < 10_000
    encoded = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert bgr.shape == (*expected, 3)
    np.testing.assert_allclose(bgr[0, 0], (10, 10, 200), atol=4)


def test_a_data_uri_refuses_floats():
    with pytest.raises(ValueError, match="float64"):
        plots.data_uri(np.zeros((4, 4, 3)))


def test_a_plot_of_many_values_is_small():
    steps = np.arange(100_000)
    noise = np.random.default_rng(0).normal(size=len(steps))
    svg = plots.curves("loss", [plots.Curve("a", steps, noise)], "loss")
    assert len(svg) < 200_000
