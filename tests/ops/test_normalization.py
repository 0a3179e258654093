"""Local response normalization against its formula, cell by cell."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fpn_jax.ops.normalization import local_response_norm


def naive(x, size, k, alpha, beta):
    result, channels = np.empty_like(x), x.shape[-1]
    for index in np.ndindex(x.shape):
        *place, c = index
        total = 0.0
        for other in range(c - size // 2, c - size // 2 + size):
            if 0 <= other < channels:
                total += x[(*place, other)] ** 2
        result[index] = x[index] / (k + alpha / size * total) ** beta
    return result


@pytest.mark.parametrize("shape", [(7,), (2, 3, 3, 6), (1, 2, 1)])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_value_is_the_formulas(shape, size):
    x = np.random.default_rng(0).normal(0, 3, shape)
    constants = {"k": 1.5, "alpha": 0.7, "beta": 0.6}
    actual = local_response_norm(jnp.float32(x), size, **constants)
    np.testing.assert_allclose(actual, naive(x, size, **constants), rtol=1e-5)


def test_the_defaults_are_the_papers_constants():
    x = np.random.default_rng(0).normal(0, 30, (2, 9))
    expected = naive(x, size=5, k=2.0, alpha=1e-4, beta=0.75)
    np.testing.assert_allclose(local_response_norm(jnp.float32(x)), expected, rtol=1e-5)


def test_gradients():
    x = jnp.float32(np.random.default_rng(0).normal(size=(1, 2, 2, 6)))
    norm = jax.jit(functools.partial(local_response_norm, alpha=0.5))
    for point in (x, jnp.zeros_like(x)):
        check_grads(norm, (point,), order=1, rtol=1e-2)


def test_bfloat16_keeps_its_type_and_sums_in_float32():
    x = jnp.float32(np.random.default_rng(0).normal(0, 100, (4, 64)))
    x = x.astype(jnp.bfloat16)
    actual = local_response_norm(x)
    assert actual.dtype == jnp.bfloat16
    expected = local_response_norm(x.astype(jnp.float32))
    np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=2**-8)
