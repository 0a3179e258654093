"""Heat maps: Gaussians, the place of a maximum between cells, and coordinates."""

import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops import heat_maps


def places(count=40, low=2.0, high=11.0, seed=0):
    points = np.random.default_rng(seed).uniform(low, high, (1, count, 2))
    return jnp.asarray(points, jnp.float32)


def test_a_gaussian_is_that_of_the_formula():
    maps = heat_maps.gaussians(jnp.array([[[1.5, 2.25]]]), (4, 5), 1.3)
    for (row, column), value in np.ndenumerate(maps[0, :, :, 0]):
        distance = (column - 1.5) ** 2 + (row - 2.25) ** 2
        np.testing.assert_allclose(value, np.exp(-distance / (2 * 1.3**2)), rtol=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_the_place_of_a_gaussian_is_found_between_cells(sigma):
    points = places()
    found, value = heat_maps.peaks(heat_maps.gaussians(points, (14, 14), sigma))
    assert np.abs(found - points).max() < 0.05
    # Smoothing lowers the maximum of a narrow Gaussian.
    assert ((value > 0.5) & (value <= 1)).all()


def test_a_scaled_map_has_its_maximum_at_the_same_place():
    points = places()
    maps = heat_maps.gaussians(points, (14, 14), 1.5)
    once, _ = heat_maps.peaks(maps)
    twice, _ = heat_maps.peaks(0.1 * maps)
    np.testing.assert_allclose(once, twice, atol=1e-3)


def test_a_maximum_at_the_border_stays_at_its_cell():
    maps = heat_maps.gaussians(jnp.array([[[-0.3, 5.2], [13.4, 0.0]]]), (14, 14), 1.5)
    found, _ = heat_maps.peaks(maps)
    assert found[0].tolist() == [[0, 5], [13, 0]]


def test_noise_of_single_cells_moves_a_place_by_little():
    points = places(count=200)
    maps = heat_maps.gaussians(points, (14, 14), 1.5)
    noise = np.random.default_rng(1).uniform(0.9, 1.1, maps.shape)
    found, _ = heat_maps.peaks(maps * jnp.asarray(noise, jnp.float32))
    # Without the smoothing, the mean is 0.17.
    assert np.linalg.norm(found - points, axis=-1).mean() < 0.1


def test_flat_negative_and_nan_maps_have_a_finite_place():
    maps = np.zeros((1, 6, 7, 3), np.float32)
    maps[..., 1] = -1
    maps[..., 2] = np.nan
    maps[0, 3, 4, 2] = 0.5
    found, _ = heat_maps.peaks(jnp.asarray(maps))
    assert np.isfinite(found).all()
    assert found[0, 2].tolist() == [4, 3]


def test_cells_and_pixels_undo_each_other_and_corners_match():
    image, size = (96, 128), (24, 32)
    points = jnp.array([[0.0, 0.0], [128.0, 96.0], [2.0, 2.0]])
    cells = heat_maps.to_cells(points, image, size)
    np.testing.assert_allclose(cells[0], [-0.5, -0.5])
    np.testing.assert_allclose(cells[1], [31.5, 23.5])
    np.testing.assert_allclose(cells[2], [0.0, 0.0])
    np.testing.assert_allclose(
        heat_maps.to_pixels(cells, image, size), points, atol=1e-5
    )
