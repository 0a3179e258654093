"""Poolings by name: shapes, parameters, randomness, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import errors
from fpn_jax.layers import pooling
from fpn_jax.layers.pooling import Pool, SpatialPyramid
from fpn_jax.ops import pooling as ops
from fpn_jax.ops import weighted_pooling
from fpn_jax.ops.spatial_pyramid import spatial_pyramid_pool

WINDOWED = [
    name
    for name in pooling.names()
    if isinstance(pooling.POOLINGS[name](parent=None), Pool)
]
LEARNED = {"gem", "lip", "mixed"}
X = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
RNGS = {"params": jax.random.key(1), "dropout": jax.random.key(2)}


def apply(module, x=X, train=False):
    """Returns what a fresh module makes of a map, and its parameters."""
    call = jax.jit(lambda x: module.init_with_output(RNGS, x, train=train))
    y, variables = call(x)
    return y, variables.get("params", {})


def evaluate(module, params):
    call = jax.jit(lambda x: module.apply({"params": params}, x, train=False))
    return np.asarray(call(X))


def test_the_names():
    assert {
        *("average", "max", "min", "median", "k_max", "l2", "lp", "gem"),
        *("mixed", "soft", "stochastic", "lip"),
    } <= set(WINDOWED)


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("train", [False, True])
def test_shapes_types_and_parameters(name, train):
    narrow = jax.ShapeDtypeStruct(X.shape, jnp.bfloat16)

    def shape(module):
        init = jax.eval_shape(
            lambda x: module.init_with_output(RNGS, x, train=train), narrow
        )
        assert init[0].dtype == jnp.bfloat16
        assert bool(init[1].get("params")) == (name in LEARNED)
        return init[0].shape

    assert shape(pooling.build(name)) == (2, 3)
    assert shape(pooling.build(name, window=2)) == (2, 2, 3, 3)
    local = pooling.build(name, window=(3, 2), stride=(2, 1), padding="same")
    assert shape(local) == (2, 3, 6, 3)
    assert shape(SpatialPyramid(pool=name)) == (2, 21 * 3)
    assert shape(SpatialPyramid(bins=[(1, 5), 2], pool=name)) == (2, 9 * 3)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("average", {}, ops.average_pool),
        ("max", {}, ops.max_pool),
        ("min", {}, ops.min_pool),
        ("median", {}, ops.median_pool),
        ("l2", {}, ops.l2_pool),
        ("soft", {}, weighted_pooling.soft_pool),
        ("k_max", {"k": 3}, lambda *a: ops.k_max_pool(*a, k=3)),
        ("lp", {"p": 4.0}, lambda *a: ops.lp_pool(*a, p=4.0)),
        ("gem", {"p": 2.5}, lambda *a: ops.lp_pool(*a, p=2.5)),
        (
            "gem",
            {"p": 2.5, "per_channel": True},
            lambda *a: ops.lp_pool(*a, p=2.5),
        ),
        ("mixed", {"max_share": 0.2}, lambda *a: ops.mixed_pool(*a, max_share=0.2)),
        (
            "mixed",
            {"max_share": 1.0, "learned": False},
            ops.max_pool,
        ),
        (
            "stochastic",
            {"probabilities": "proportional"},
            lambda *a: weighted_pooling.stochastic_pool(
                *a, probabilities="proportional"
            ),
        ),
    ],
)
def test_every_argument_reaches_its_function(name, arguments, expected):
    windows = {"window": (2, 3), "stride": 1, "padding": 1}
    modules = (
        pooling.build(name, **arguments, **windows),
        SpatialPyramid((2, 1), {"name": name} | arguments),
    )
    actual = [apply(module)[0] for module in modules]
    functions = jax.jit(
        lambda x: (
            expected(x, *windows.values()),
            spatial_pyramid_pool(x, (2, 1), expected),
        )
    )
    for y, z in zip(actual, functions(X), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)


def test_learned_parameters_start_where_told_and_learn():
    _, params = apply(pooling.build("gem", p=2.0, per_channel=True))
    np.testing.assert_allclose(params["log_p"], [math.log(2)] * 3, rtol=1e-6)
    _, params = apply(pooling.build("mixed", max_share=0.2))
    logit = params["max_share_logit"]
    np.testing.assert_allclose(jax.nn.sigmoid(logit), 0.2, rtol=1e-6)
    for name, arguments in {"gem": {}, "mixed": {}, "lip": {"width": 4}}.items():
        module = pooling.build(name, window=2, **arguments)
        _, params = apply(module)

        def loss(params, module=module):
            return (module.apply({"params": params}, X, train=True) ** 2).sum()

        gradients = jax.jit(jax.grad(loss))(params)
        for leaf in map(np.asarray, jax.tree.leaves(gradients)):
            assert np.isfinite(leaf).all()
            assert np.abs(leaf).max() > 0


def test_the_exponent_stays_positive():
    module = pooling.build("gem")
    y = evaluate(module, {"log_p": jnp.array(-3.0)})
    assert np.isfinite(y).all()


def test_lip_weighs_cells_between_average_and_maximum():
    y, params = apply(pooling.build("lip", width=4))
    assert set(params) == {
        f"{name}_{kind}"
        for name in ("reduce", "spread", "importance")
        for kind in ("conv", "norm")
    }
    x = np.asarray(X)
    assert (y > x.min(axis=(1, 2))).all()
    assert (y < x.max(axis=(1, 2))).all()
    module = pooling.build("lip")
    _, params = apply(module)
    # Without a scale all logits are equal.
    params["importance_norm"]["scale"] *= 0
    y = evaluate(module, params)
    np.testing.assert_allclose(y, x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_stochastic_draws_in_training_only():
    module = pooling.build("stochastic", window=3, stride=1)
    draw = jax.jit(lambda key: module.apply({}, X, train=True, rngs={"dropout": key}))
    first, again, other = (np.asarray(draw(jax.random.key(k))) for k in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert np.isin(first, X).all()
    expectation = jax.jit(lambda x: weighted_pooling.stochastic_pool(x, 3, 1))(X)
    np.testing.assert_allclose(evaluate(module, {}), expectation, rtol=1e-6)


def test_divisions_of_a_stochastic_pyramid_draw_on_their_own():
    x = jnp.arange(400.0).reshape(1, 20, 20, 1) / 1e3
    y, _ = apply(SpatialPyramid((1, 1, 1, 1), "stochastic"), x, train=True)
    assert len(np.unique(y)) > 1


def test_a_pyramid_shares_the_parameters_of_its_pool():
    arguments = {"per_channel": True}
    y, params = apply(SpatialPyramid((2, 1), {"name": "gem"} | arguments))
    assert y.shape == (2, 15)
    assert jax.tree.map(jnp.shape, params) == {"pooling": {"log_p": (3,)}}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("avg", {}, ["pool 'avg'", "average"]),
        ("max", {"p": 2}, ["argument of pool 'max' 'p'", "window"]),
        ("max", {"pool": ops.min_pool}, ["argument of pool 'max' 'pool'"]),
        ("max", {"window": 0}, ["window is 0"]),
        ("max", {"stride": 2}, ["stride is 2", "whole map"]),
        ("max", {"window": 2, "padding": "SAME"}, ["padding 'SAME'", "same"]),
        ("k_max", {"k": 0}, ["k is 0"]),
        ("k_max", {"k": 2.5}, ["k is 2.5", "whole number"]),
        ("lp", {"p": -1.0}, ["p is -1.0", "above 0"]),
        ("gem", {"p": 0.0}, ["p is 0.0", "above 0"]),
        ("mixed", {"max_share": 2.0}, ["max_share is 2.0", "[0, 1]"]),
        ("mixed", {"max_share": 1.0}, ["max_share is 1.0", "learned"]),
        ("stochastic", {"probabilities": "x"}, ["probabilities 'x'", "softmax"]),
        ("lip", {"width": 0}, ["width is 0"]),
    ],
)
def test_what_is_refused(name, arguments, words):
    with pytest.raises(errors.InputError) as raised:
        pooling.build(name, **arguments)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"bins": ()}, ["bins are ()"]),
        ({"bins": (2, 0)}, ["bins is 0"]),
        ({"pool": "avg"}, ["pool 'avg'", "average"]),
        (
            {"pool": {"name": "max", "window": 2}},
            ["argument of pool 'max'", "'window'", "(none)"],
        ),
        (
            {"pool": {"name": "lp", "k": 2}},
            ["argument of pool 'lp' 'k'", "choose one of p"],
        ),
        ({"pool": {"name": "lp", "p": 0}}, ["p is 0"]),
    ],
)
def test_what_a_pyramid_refuses(attributes, words):
    with pytest.raises(errors.InputError) as raised:
        SpatialPyramid(**attributes)
    assert all(word in str(raised.value) for word in words), raised.value


def test_covariance_pools_whole_maps_only():
    y, _ = apply(pooling.build("covariance"))
    assert y.shape == (2, 6)
    with pytest.raises(errors.InputError, match="argument of pool 'covariance'"):
        pooling.build("covariance", window=2)
    with pytest.raises(errors.InputError, match="which pools whole maps only"):
        SpatialPyramid(pool="covariance")
