"""Squeeze and excitation against its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fpn_jax.layers.squeeze_excite import SqueezeExcite


def test_is_its_formula():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 8))
    layer = SqueezeExcite(3, nn.silu)
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    parameters = jax.tree.map(
        lambda p: np.random.default_rng(p.size).normal(size=p.shape), variables
    )["params"]
    squeeze, excite = parameters["squeeze"], parameters["excite"]
    assert squeeze["kernel"].shape == (1, 1, 8, 3)
    hidden = np.asarray(x).mean(axis=(1, 2)) @ squeeze["kernel"][0, 0] + squeeze["bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    gate = 1 / (1 + np.exp(-(hidden @ excite["kernel"][0, 0] + excite["bias"])))
    y = layer.apply({"params": parameters}, x)
    np.testing.assert_allclose(y, x * gate[:, None, None], atol=1e-5)


def test_computes_in_its_type_with_float32_parameters():
    x = jnp.ones((1, 2, 2, 4), jnp.bfloat16)
    layer = SqueezeExcite(2, dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(
        functools.partial(layer.init_with_output, jax.random.key(0)), x
    )
    assert y.dtype == jnp.bfloat16
    assert y.shape == x.shape
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
