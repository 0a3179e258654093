"""Depthwise layers: parameters, paddings, initial values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fpn_jax.errors import InputError
from fpn_jax.layers.depthwise import HE_DEPTHWISE, DepthwiseConv, DepthwiseConvNorm
from fpn_jax.layers.numerics import Numerics


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


@pytest.mark.parametrize(
    ("padding", "stride", "size"),
    [("symmetric", 2, 4), ("same", 2, 4), ("valid", 1, 5), ("symmetric", 1, 7)],
)
def test_equals_the_library_s_grouped_convolution(padding, stride, size):
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 4))
    ours = DepthwiseConv(3, stride, padding=padding)
    variables = ours.init(jax.random.key(1), x)
    assert shapes(variables) == {"params": {"kernel": (3, 3, 1, 4)}}
    theirs = nn.Conv(
        4,
        (3, 3),
        stride,
        padding={"symmetric": 1}.get(padding, padding.upper()),
        feature_group_count=4,
        use_bias=False,
    )
    y = ours.apply(variables, x)
    assert y.shape == (2, size, size, 4)
    np.testing.assert_allclose(y, theirs.apply(variables, x), atol=1e-5)


def test_with_norm_has_the_names_of_conv_norm_and_its_epsilon():
    x = jnp.ones((1, 4, 4, 8), jnp.bfloat16)
    layer = DepthwiseConvNorm(3, numerics=Numerics(jnp.bfloat16, epsilon=3.0))
    variables = jax.jit(functools.partial(layer.init, train=False))(
        jax.random.key(0), x
    )
    assert shapes(variables) == {
        "params": {
            "conv": {"kernel": (3, 3, 1, 8)},
            "norm": {"scale": (8,), "bias": (8,)},
        },
        "batch_stats": {"norm": {"mean": (8,), "var": (8,)}},
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    y = layer.apply(variables, x, train=False)
    assert y.dtype == jnp.bfloat16
    conv = DepthwiseConv(3, dtype=jnp.bfloat16)
    raw = conv.apply({"params": variables["params"]["conv"]}, x)
    np.testing.assert_allclose(y, raw.astype(jnp.float32) / 2, rtol=1e-2)


def test_kernels_start_with_two_over_the_window_s_cells():
    kernel = HE_DEPTHWISE(jax.random.key(0), (5, 5, 1, 4000))
    assert abs(float(kernel.std()) - (2 / 25) ** 0.5) < 1e-2


def test_an_unknown_padding_is_refused():
    with pytest.raises(InputError, match="padding 'samee' is unknown"):
        DepthwiseConv(3, padding="samee").init(
            jax.random.key(0), jnp.ones((1, 4, 4, 1))
        )
