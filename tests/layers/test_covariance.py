"""The covariance pooling layer: its methods, its types, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.layers.covariance import METHODS, CovariancePool
from fpn_jax.ops import covariance

X = jax.random.normal(jax.random.key(0), (2, 5, 4, 6))


def apply(layer, variables, x=X):
    return jax.jit(lambda x: layer.apply(variables, x, train=True))(x)


@pytest.mark.parametrize(
    ("attributes", "transform"),
    [
        ({}, covariance.matrix_power),
        (
            {"power": 0.3, "epsilon": 1e-2, "truncation": 0.2},
            functools.partial(
                covariance.matrix_power, power=0.3, epsilon=1e-2, truncation=0.2
            ),
        ),
        ({"method": "log"}, covariance.matrix_log),
        (
            {"method": "log", "epsilon": 0.1, "truncation": 0.3},
            functools.partial(covariance.matrix_log, epsilon=0.1, truncation=0.3),
        ),
        ({"method": "newton_schulz"}, covariance.matrix_sqrt_newton_schulz),
        (
            {"method": "newton_schulz", "iterations": 3, "epsilon": 0.5},
            functools.partial(
                covariance.matrix_sqrt_newton_schulz, iterations=3, epsilon=0.5
            ),
        ),
    ],
)
def test_every_attribute_reaches_its_function(attributes, transform):
    centre = not attributes
    layer = CovariancePool(centre=centre, **attributes)
    expected = jax.jit(lambda x: covariance.covariance_pool(x, transform, centre))(X)
    np.testing.assert_allclose(apply(layer, {}), expected, atol=1e-6)


def test_width_reduces_the_channels_first():
    layer = CovariancePool(width=3)
    variables = layer.init(jax.random.key(0), X, train=False)
    kernel = variables["params"]["reduce"]["kernel"]
    assert jax.tree.map(jnp.shape, variables) == {
        "params": {"reduce": {"kernel": (1, 1, 6, 3)}}
    }
    y = apply(layer, variables)
    assert y.shape == (2, 6)
    np.testing.assert_allclose(
        y, covariance.covariance_pool(X @ kernel[0, 0]), atol=1e-5
    )


@pytest.mark.parametrize("method", ["power", "newton_schulz"])
def test_bfloat16_in_and_out_with_float32_between(method):
    layer, half = CovariancePool(width=3, method=method), X.astype(jnp.bfloat16)
    variables = layer.init(jax.random.key(0), half, train=False)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    y = apply(layer, variables, half)
    assert y.dtype == jnp.bfloat16
    exact = apply(layer, variables, half.astype(jnp.float32))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("method", METHODS)
def test_gradient_of_the_parameters_is_finite_on_a_map_without_full_rank(method):
    layer = CovariancePool(width=4, method=method)
    x = jnp.ones((2, 1, 2, 6)).at[0, 0, 0].set(2.0)
    variables = layer.init(jax.random.key(0), x, train=False)
    grads = jax.jit(jax.grad(lambda v: layer.apply(v, x, train=True).sum()))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"method": "root"}, "method 'root' is unknown.*power, log, newton_schulz"),
        ({"width": 0}, "width is 0"),
        ({"power": -0.5}, r"power is -0\.5; it must be above 0"),
        ({"epsilon": 0.0}, r"epsilon is 0\.0"),
        ({"truncation": 1.0}, r"truncation is 1\.0"),
        ({"iterations": 7}, "iterations is 7, but method 'power' does not use it"),
        (
            {"method": "log", "power": 0.3},
            "power is 0.3, but method 'log' does",
        ),
        ({"method": "log", "iterations": 7}, "iterations is 7, but method 'log'"),
        ({"method": "newton_schulz", "power": 0.3}, "but method 'newton_schulz'"),
        ({"method": "newton_schulz", "truncation": 0.1}, "truncation is 0.1, but"),
        ({"method": "newton_schulz", "iterations": 0}, "iterations is 0"),
    ],
)
def test_what_a_method_does_not_use_is_refused(attributes, sentence):
    with pytest.raises(InputError, match=sentence):
        CovariancePool(**attributes)
