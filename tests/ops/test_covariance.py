"""Covariance pooling against linear algebra in float64, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from fpn_jax.errors import InputError
from fpn_jax.ops.covariance import (
    covariance,
    covariance_pool,
    matrix_log,
    matrix_power,
    matrix_sqrt_newton_schulz,
    upper_triangle,
)

FUNCTIONS = {
    "power": matrix_power,
    "cube_root": functools.partial(matrix_power, power=1 / 3),
    "log": matrix_log,
}


def rotation(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def with_eigenvalues(*values):
    basis = rotation(len(values))
    return basis * np.array(values) @ basis.T


@pytest.mark.parametrize("centre", [True, False])
def test_covariance_equals_its_definition(centre):
    x = np.random.default_rng(0).normal(1, 2, size=(2, 3, 5, 4))
    for map_, sigma in zip(x, covariance(jnp.float32(x), centre), strict=True):
        cells = map_.reshape(-1, 4)
        expected = np.cov(cells.T, bias=True) if centre else cells.T @ cells / 15
        np.testing.assert_allclose(sigma, expected, atol=1e-5)


def test_functions_of_a_matrix_equal_scipy():
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 5))
    sigma = np.stack([np.cov(map_.reshape(-1, 5).T, bias=True) for map_ in x])
    for matrix, root, cube_root, log in zip(
        sigma,
        *(jax.jit(f)(jnp.float32(sigma)) for f in FUNCTIONS.values()),
        strict=True,
    ):
        np.testing.assert_allclose(root, scipy.linalg.sqrtm(matrix), atol=1e-5)
        expected = scipy.linalg.fractional_matrix_power(matrix, 1 / 3)
        np.testing.assert_allclose(cube_root, expected, atol=1e-5)
        expected = scipy.linalg.logm(matrix + 1e-3 * np.eye(5))
        np.testing.assert_allclose(log, expected, atol=1e-5)


def test_power_one_is_the_identity_and_powers_multiply():
    sigma = jnp.float32(with_eigenvalues(0.3, 1.0, 1.0, 5.0))
    np.testing.assert_allclose(matrix_power(sigma, 1.0), sigma, atol=1e-5)
    root = matrix_power(sigma)
    np.testing.assert_allclose(root @ root, sigma, atol=1e-5)


def test_below_epsilon_the_power_is_a_line_through_zero():
    with jax.enable_x64(True):
        sigma = jnp.diag(jnp.array([0.0, 1e-6, 1e-4, 4e-4]))
        root = np.diag(matrix_power(sigma, epsilon=1e-4))
    np.testing.assert_allclose(root, [0, 1e-4, 1e-2, 2e-2], atol=1e-12)


def test_truncated_eigenvalues_count_as_zero():
    sigma = with_eigenvalues(0.001, 0.01, 1.0, 4.0)
    root = matrix_power(jnp.float32(sigma), truncation=0.1)
    basis = rotation(4)
    np.testing.assert_allclose(root, basis * [0, 0, 1, 2] @ basis.T, atol=1e-5)
    log = matrix_log(jnp.float32(sigma), truncation=0.1, epsilon=1e-2)
    expected = basis * np.log([0.01, 0.01, 1.01, 4.01]) @ basis.T
    np.testing.assert_allclose(log, expected, atol=1e-5)


EIGENVALUES = {
    "distinct": (0.2, 0.7, 1.5, 4.0),
    "repeated": (0.5, 2.0, 2.0, 2.0),
    "nearly": (0.5, 2.0, 2.0 + 1e-7, 2.1),
    "all_equal": (1.0, 1.0, 1.0, 1.0),
    "rank_one": (0.0, 0.0, 0.0, 3.0),
    "zero": (0.0, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("truncation", [0.0, 0.1])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient_equals_finite_differences(function, truncation):
    """Along symmetric directions, in float64; around 0 within ε, where it is smooth."""
    direction = np.random.default_rng(3).normal(size=(4, 4))
    direction += direction.T
    weights = np.random.default_rng(4).normal(size=(4, 4))
    step = 1e-7 * direction
    cases = dict(EIGENVALUES)
    if truncation:
        # The limit itself is one where all eigenvalues are 0.
        del cases["zero"]
    sigma = np.stack([with_eigenvalues(*values) for values in cases.values()])

    def loss(matrix):
        image = FUNCTIONS[function](matrix, truncation=truncation)
        return (image * weights).sum((1, 2))

    with jax.enable_x64(True):
        losses = jax.jit(loss)
        grad = jax.jit(jax.grad(lambda matrix: loss(matrix).sum()))(jnp.asarray(sigma))
        grad = np.asarray(grad)
        rise = np.asarray(losses(sigma + step)) - np.asarray(losses(sigma - step))
    slopes = (grad * direction).sum((1, 2))
    for case, slope, expected in zip(cases, slopes, rise / 2e-7, strict=True):
        assert slope == pytest.approx(expected, rel=2e-4), case


@pytest.mark.parametrize("transform", [matrix_power, matrix_log])
def test_gradient_of_the_pooling(transform):
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 3))
    with jax.enable_x64(True):
        check_grads(
            jax.jit(lambda x: covariance_pool(x, transform)),
            (x.astype(jnp.float64),),
            order=1,
            modes=["rev"],
        )


MAPS = {
    "zero": jnp.zeros((2, 3, 3, 4)),
    "constant": jnp.full((2, 3, 3, 4), 5.0),
    "rank_one": jnp.outer(jnp.arange(18.0) / 9, jnp.arange(1.0, 5)).reshape(2, 3, 3, 4),
    "one_cell": jnp.ones((2, 1, 1, 4)),
    "few_cells": jax.random.normal(jax.random.key(0), (2, 1, 2, 4)),
}


@pytest.mark.parametrize(
    "transform", [matrix_power, matrix_log, matrix_sqrt_newton_schulz]
)
def test_pooling_and_gradient_stay_finite_without_full_rank(transform):
    def loss(x):
        return (covariance_pool(x, transform) ** 2).sum()

    gradient = jax.jit(jax.value_and_grad(loss))
    for name, x in MAPS.items():
        for value in jax.tree.leaves(gradient(x)):
            assert np.isfinite(value).all(), name


def test_gradient_where_cells_are_fewer_than_channels():
    """The null space of Σ takes no part in the gradient of `‖Σ^½‖² = tr Σ`."""
    x = jax.random.normal(jax.random.key(0), (1, 1, 3, 6))
    loss, grad = jax.jit(
        jax.value_and_grad(lambda x: (covariance_pool(x, centre=False) ** 2).sum())
    )(x)
    np.testing.assert_allclose(loss, (x**2).sum() / 3, rtol=1e-4)
    np.testing.assert_allclose(grad, 2 * x / 3, rtol=2e-3, atol=1e-4)


def test_newton_schulz_equals_the_eigenvalues_root():
    sigma = covariance(jax.random.normal(jax.random.key(0), (2, 8, 8, 5)))
    weights = jax.random.normal(jax.random.key(1), sigma.shape)

    def root_and_gradient(function):
        root, back = jax.vjp(function, sigma)
        return root, back(weights)[0]

    def iterate(steps):
        return functools.partial(matrix_sqrt_newton_schulz, iterations=steps)

    root, expected = jax.jit(lambda: root_and_gradient(matrix_power))()
    iterated, grad = jax.jit(lambda: root_and_gradient(iterate(12)))()
    np.testing.assert_allclose(iterated, root, atol=1e-5)
    # Of a symmetric matrix only the symmetric part of a gradient means something.
    grad = (grad + jnp.matrix_transpose(grad)) / 2
    np.testing.assert_allclose(grad, expected, atol=1e-4)
    early = jax.jit(lambda: [iterate(steps)(sigma) for steps in (1, 4, 8)])()
    errors = [np.abs(matrix - root).max() for matrix in early]
    assert errors == sorted(errors, reverse=True)


def test_newton_schulz_follows_the_papers_steps():
    matrix = with_eigenvalues(0.1, 1.0, 3.0)
    trace = np.trace(matrix) + 1e-6
    y, z = matrix / trace, np.eye(3)
    for _ in range(5):
        t = (3 * np.eye(3) - z @ y) / 2
        y, z = y @ t, t @ z
    root = matrix_sqrt_newton_schulz(jnp.float32(matrix))
    np.testing.assert_allclose(root, np.sqrt(trace) * y, atol=1e-5)


def test_newton_schulz_holds_without_full_rank_at_the_most_steps():
    sigma = covariance(jax.random.normal(jax.random.key(0), (2, 3, 3, 32)))
    root = jax.jit(lambda: matrix_sqrt_newton_schulz(sigma, 20))()
    np.testing.assert_allclose(root, matrix_power(sigma), atol=5e-3)


def test_the_triangle_keeps_products():
    a, b = jnp.float32(np.random.default_rng(0).normal(size=(2, 3, 5, 5)))
    a, b = a + jnp.matrix_transpose(a), b + jnp.matrix_transpose(b)
    vectors = upper_triangle(a), upper_triangle(b)
    assert vectors[0].shape == (3, 15)
    np.testing.assert_allclose(
        (vectors[0] * vectors[1]).sum(-1), (a * b).sum((1, 2)), rtol=1e-5
    )


def test_bfloat16_is_computed_in_float32():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3), jnp.bfloat16)
    y = jax.jit(covariance_pool)(x)
    assert y.dtype == jnp.bfloat16
    exact = jax.jit(covariance_pool)(x.astype(jnp.float32))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        (matrix_power, {"power": 0}, "power is 0"),
        (matrix_power, {"epsilon": 0.0}, r"epsilon is 0\.0"),
        (matrix_power, {"truncation": 1}, "truncation is 1"),
        (matrix_log, {"epsilon": float("nan")}, "epsilon is nan"),
        (matrix_log, {"truncation": -0.1}, r"truncation is -0\.1"),
        (matrix_sqrt_newton_schulz, {"iterations": 0}, "iterations is 0"),
        (matrix_sqrt_newton_schulz, {"iterations": 21}, "iterations is 21"),
        (matrix_sqrt_newton_schulz, {"epsilon": -1}, "epsilon is -1"),
    ],
)
def test_what_no_function_takes_is_refused(function, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        function(jnp.eye(2), **arguments)
