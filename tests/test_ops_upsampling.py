"""Nearest upsampling against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fpn_jax.ops.upsampling import resize_nearest


def naive(x, size):
    rows = [i * x.shape[1] // size[0] for i in range(size[0])]
    columns = [j * x.shape[2] // size[1] for j in range(size[1])]
    return x[:, rows][:, :, columns]


@pytest.mark.parametrize(
    "size", [(8, 6), (7, 5), (4, 3), (16, 12), (11, 8), (2, 2), (5, 10)]
)
def test_equals_its_definition(size):
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)
    y = resize_nearest(jnp.asarray(x), size)
    np.testing.assert_array_equal(y, naive(x, size))
    check_grads(lambda x: resize_nearest(x, size), (jnp.asarray(x),), 1, ["rev"])


@pytest.mark.parametrize("length", [1, 2, 3, 13, 28, 39])
def test_one_level_finer_every_cell_copies_the_one_that_covers_it(length):
    coarse = jnp.arange(-(-length // 2), dtype=jnp.float32).reshape(1, -1, 1, 1)
    fine = resize_nearest(coarse, (length, 1))[0, :, 0, 0]
    np.testing.assert_array_equal(fine, np.arange(length) // 2)


def test_even_doubling_equals_the_library():
    x = jax.random.normal(jax.random.key(0), (1, 5, 7, 2), jnp.bfloat16)
    y = resize_nearest(x, (10, 14))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jax.image.resize(x, y.shape, "nearest"))
