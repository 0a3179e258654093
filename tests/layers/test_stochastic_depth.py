"""Stochastic depth: whole examples, an unchanged mean, nothing outside training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.layers.stochastic_depth import StochasticDepth


def test_drops_whole_examples_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 3, 2))
    rngs = {"dropout": jax.random.key(0)}
    y = np.asarray(StochasticDepth(0.25).apply({}, x, train=True, rngs=rngs))
    assert (y == y[:, :1, :1, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75])
    assert abs(y.mean() - 1) < 0.03


def test_changes_nothing_outside_training_or_at_rate_0():
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
    for layer, train in ((StochasticDepth(0.9), False), (StochasticDepth(0.0), True)):
        np.testing.assert_array_equal(layer.apply({}, x, train=train), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(InputError, match=r"rate is .*; it must be in \[0, 1\)"):
        StochasticDepth(rate)
