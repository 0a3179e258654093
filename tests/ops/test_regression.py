"""Losses of differences: values, joints and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops import regression

X = np.linspace(-25, 25, 401)


def expected(name, x):
    size = np.abs(x)
    if name == "l1":
        return size
    if name == "l2":
        return x * x
    if name == "smooth_l1":
        return np.where(size < 1, 0.5 * x * x, size - 0.5)
    constant = 10 - 10 * np.log(1 + 10 / 2)
    return np.where(size < 10, 10 * np.log(1 + size / 2), size - constant)


@pytest.mark.parametrize("name", regression.LOSSES)
def test_the_value_is_that_of_the_formula(name):
    found = regression.LOSSES[name](jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(found, expected(name, X), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", regression.LOSSES)
def test_gradients_are_finite_also_at_0_and_at_the_joints(name):
    for x in (-10.0, -1.0, 0.0, 1.0, 10.0, 1e6):
        assert np.isfinite(jax.grad(regression.LOSSES[name])(x))


def test_the_parts_of_wing_and_smooth_l1_join():
    below, above = regression.wing(jnp.array([3 - 1e-4, 3 + 1e-4]), 3.0, 0.5)
    assert abs(above - below) < 1e-3
    below, above = regression.smooth_l1(jnp.array([0.5 - 1e-4, 0.5 + 1e-4]), 0.5)
    assert abs(above - below) < 1e-3
    np.testing.assert_allclose(
        regression.smooth_l1(jnp.array(0.2), 0.5), 0.04, rtol=1e-6
    )
