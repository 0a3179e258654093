"""Every operation on maps under the transformations of JAX, and with unusual types.

The right values are finite differences and other orders of differentiation in float64.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from fpn_jax.errors import InputError
from fpn_jax.ops import covariance as c
from fpn_jax.ops import pooling as p
from fpn_jax.ops import spatial_pyramid as s
from fpn_jax.ops import unpooling as n
from fpn_jax.ops import upsampling as u
from fpn_jax.ops import weighted_pooling as w
from fpn_jax.ops.kernels.convolution import convolve
from fpn_jax.ops.kernels.depthwise import depthwise_conv
from fpn_jax.ops.kernels.linear import linear_map
from fpn_jax.ops.kernels.windows import Bins

PLACED = {"window": (2, 3), "stride": 1, "padding": "same"}
EXTREMES = {
    "max": partial(p.max_pool, **PLACED),
    "min": partial(p.min_pool, **PLACED),
    "global_max": p.max_pool,
    "max_of_bins": partial(p.max_pool, window=Bins(2, 4)),
    "spp": partial(s.spatial_pyramid_pool, bins=(2, 1)),
}
MEANS = {
    "mixed": partial(p.mixed_pool, max_share=0.3, **PLACED),
    "average": partial(p.average_pool, **PLACED),
    "median": partial(p.median_pool, **PLACED),
    "k_max": partial(p.k_max_pool, k=2, **PLACED),
    "l2": partial(p.l2_pool, **PLACED),
    "lp": partial(p.lp_pool, p=3.0, **PLACED),
    "soft": partial(w.soft_pool, **PLACED),
    "stochastic": partial(w.stochastic_pool, probabilities="proportional", **PLACED),
    "covariance": c.covariance_pool,
    "newton_schulz": partial(c.covariance_pool, transform=c.matrix_sqrt_newton_schulz),
}
RESIZINGS = {
    f"{name}_{size[0]}": partial(getattr(u, f"resize_{name}"), size=size)
    for name in ("nearest", "bilinear", "bicubic", "lanczos")
    for size in ((10, 12), (7, 4))
}


def kernel(channels, dtype):
    values = np.random.default_rng(1).normal(size=(3, 3, 1, channels))
    return jnp.asarray(values, dtype)


def depthwise(x):
    return depthwise_conv(x, kernel(x.shape[-1], x.dtype), stride=2)


def full(x):
    weights = jnp.tile(kernel(x.shape[-1], x.dtype), (1, 1, x.shape[-1], 1))
    return convolve(x, weights)


OTHERS = {"depthwise": depthwise, "convolution": full, "nails": n.bed_of_nails}
ALL = EXTREMES | MEANS | RESIZINGS | OTHERS


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def maps(dtype=np.float64, batch=2):
    values = np.random.default_rng(0).normal(3, 1, (batch, 5, 6, 2))
    return jnp.asarray(values, dtype)


def loss(function):
    return lambda x: jnp.sum(function(x) ** 2)


@pytest.mark.parametrize("name", ALL)
def test_forward_mode_is_the_finite_difference(name, x64):
    function, x = ALL[name], maps()
    direction = jnp.asarray(np.random.default_rng(2).normal(size=x.shape))
    value, slope = jax.jvp(function, (x,), (direction,))
    assert value.dtype == slope.dtype == jnp.float64
    step = 1e-6 * direction
    expected = (function(x + step) - function(x - step)) / 2e-6
    np.testing.assert_allclose(slope, expected, atol=1e-7)
    _, linear = jax.linearize(function, x)
    np.testing.assert_allclose(linear(direction), slope, atol=1e-12)


SECOND = ("max", "spp", "mixed", "depthwise", "bilinear_10", "lanczos_10", "median")


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_agree_in_every_order(name, x64):
    of, x = loss(ALL[name]), maps(batch=1)[:, :3, :3]
    forward_over_reverse = jax.hessian(of)(x)
    for hessian in (jax.jacrev(jax.jacrev(of)), jax.jacfwd(jax.jacfwd(of))):
        np.testing.assert_allclose(hessian(x), forward_over_reverse, atol=1e-12)


def test_second_derivatives_of_a_filter_and_its_map(x64):
    x, weights = maps(), kernel(2, jnp.float64)

    def of(x, weights):
        return jnp.sum(depthwise_conv(x, weights) ** 2)

    mixed = jax.jacfwd(jax.grad(of), argnums=1)(x, weights)
    other = jax.jacrev(jax.grad(of, argnums=1), argnums=0)(x, weights)
    expected = np.moveaxis(np.asarray(other), range(4), range(-4, 0))
    np.testing.assert_allclose(mixed, expected, atol=1e-10)


@pytest.mark.parametrize("name", [*EXTREMES, *OTHERS, "bicubic_10"])
def test_batched_and_rematerialized_gradients(name):
    of, x = loss(ALL[name]), maps(np.float32)
    gradient = jax.grad(of)(x)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(of))(x), gradient, rtol=1e-6)
    stacked = jnp.stack([x, 2 * x])
    batched = jax.vmap(jax.grad(of))(stacked)
    np.testing.assert_allclose(batched[0], gradient, rtol=1e-4)
    np.testing.assert_allclose(batched[1], jax.grad(of)(2 * x), rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_gradients_under_shard_map_with_its_default_check(name):
    of, x = loss(ALL[name]), maps(np.float32)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    sharded = jax.shard_map(jax.grad(of), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(sharded(x), jax.grad(of)(x), rtol=2e-3, atol=1e-5)


def test_the_gradient_of_shared_weights_is_summed_over_shards():
    x, weights = maps(np.float32), kernel(2, jnp.float32)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def of(weights, x):
        return jnp.sum(depthwise_conv(x, weights) ** 2)

    gradient = jax.shard_map(
        jax.grad(of),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    np.testing.assert_allclose(
        gradient(weights, x), jax.grad(of)(weights, x), rtol=1e-5
    )


@pytest.mark.parametrize("name", ALL)
def test_an_empty_batch_gives_an_empty_batch(name):
    x = maps(np.float32)
    shape = jax.eval_shape(ALL[name], x).shape
    assert jax.eval_shape(ALL[name], x[:0]).shape == (0, *shape[1:])
    gradient = jax.eval_shape(jax.grad(loss(ALL[name])), x[:0])
    assert gradient.shape == (0, *x.shape[1:])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int8, bool])
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_of_integers_are_exact(name, dtype):
    values = np.random.default_rng(0).integers(0, 120, (2, 5, 6, 2))
    x = jnp.asarray(values if dtype is not bool else values > 100).astype(dtype)
    result = EXTREMES[name](x)
    assert result.dtype == dtype
    expected = EXTREMES[name](x.astype(jnp.float32))
    np.testing.assert_array_equal(np.asarray(result, np.float32), expected)


@pytest.mark.parametrize("name", MEANS)
def test_means_of_integers_are_floating(name):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 5, 6, 2)), jnp.uint8)
    result = MEANS[name](x)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, MEANS[name](x.astype(jnp.float32)))


@pytest.mark.parametrize("name", RESIZINGS)
def test_resized_bytes_are_rounded_and_clipped(name):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 5, 6, 2)), jnp.uint8)
    result = RESIZINGS[name](x)
    assert result.dtype == jnp.uint8
    exact = np.asarray(RESIZINGS[name](x.astype(jnp.float32)))
    np.testing.assert_array_equal(result, exact.round().clip(0, 255))


def test_what_is_not_supported_is_refused_in_a_sentence():
    x = jnp.zeros((1, 4, 4, 1), jnp.int32)
    with pytest.raises(ValueError, match="maps are int32; resizing by weights needs"):
        u.resize_bilinear(x, (8, 8))
    with pytest.raises(ValueError, match="maps are int32; depthwise_conv needs floats"):
        depthwise_conv(x, jnp.zeros((3, 3, 1, 1), jnp.int32))
    for pool in (p.max_pool, p.average_pool, p.median_pool):
        with pytest.raises(InputError, match="maps have 0 × 4 cells; pooling needs"):
            pool(jnp.zeros((1, 0, 4, 1)))


def test_a_linear_map_uses_its_own_transpose():
    """A transpose that is wrong on purpose shows which one is used."""
    double = partial(linear_map, lambda x: 2.0 * x, lambda y: 5.0 * y)
    assert double(jnp.float32(3)) == 6
    assert jax.grad(double)(jnp.float32(3)) == 5
    assert jax.jvp(double, (3.0,), (1.0,))[1] == 2
    # The transpose of the transpose is the map.
    assert jax.grad(lambda x: jax.vjp(double, x)[1](x)[0])(jnp.float32(1)) == 2
