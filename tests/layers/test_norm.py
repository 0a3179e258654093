"""Batch normalization over a single value, which would train nothing."""

import jax
import jax.numpy as jnp
import pytest

from fpn_jax.errors import InputError
from fpn_jax.layers.norm import BatchNorm


def train(shape, axis_name=None, replicas=1):
    layer = BatchNorm(train=True, axis_name=axis_name)
    x = jnp.ones((replicas, *shape))
    variables = layer.init(jax.random.key(0), x[0])

    def step(x):
        return layer.apply(variables, x, mutable=["batch_stats"])[0]

    if axis_name is None:
        return jax.eval_shape(step, x[0])
    return jax.eval_shape(jax.vmap(step, axis_name=axis_name), x)


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (1, 4)])
def test_a_single_value_for_each_channel_is_refused(shape):
    with pytest.raises(InputError, match="has a single value for each channel"):
        train(shape)
    with pytest.raises(InputError, match="has a single value for each channel"):
        train(shape, "data", replicas=1)


@pytest.mark.parametrize("shape", [(1, 1, 2, 4), (2, 1, 1, 4), (2, 4)])
def test_two_values_are_enough(shape):
    assert train(shape).shape == shape


def test_values_of_all_replicas_count():
    assert train((1, 1, 1, 4), "data", replicas=2).shape == (2, 1, 1, 1, 4)


def test_evaluation_and_initialization_take_a_single_value():
    layer = BatchNorm(train=False)
    x = jnp.ones((1, 1, 1, 4))
    variables = BatchNorm(train=True).init(jax.random.key(0), x)
    assert layer.apply(variables, x).shape == x.shape
