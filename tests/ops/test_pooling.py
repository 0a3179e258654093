"""Pooling against a plain loop over windows."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from fpn_jax.ops import pooling, weighted_pooling
from fpn_jax.ops.kernels.windows import Bins, window_counts

CASES = [
    (window, stride, padding)
    for window, stride in [(1, 2), (2, 2), (3, 2), (2, 3), (3, 1)]
    for padding in ["same", "valid", window // 2, ((0, window // 2), (window // 2, 0))]
]
SIZES = [(6, 6), (7, 9), (5, 8)]


def sides(length, window, stride, padding, axis):
    if padding == "valid":
        return 0, 0
    if padding == "same":
        missing = (math.ceil(length / stride) - 1) * stride + window - length
        before = max(missing, 0) // 2
        return before, max(missing, 0) - before
    return (padding, padding) if isinstance(padding, int) else padding[axis]


def naive(x, window, stride, padding, reduce):
    window, stride = (n if isinstance(n, tuple) else (n, n) for n in (window, stride))
    starts = []
    for axis, length in enumerate(x.shape[1:3]):
        before, after = sides(length, window[axis], stride[axis], padding, axis)
        starts.append(range(-before, length + after - window[axis] + 1, stride[axis]))
    result = np.zeros((x.shape[0], len(starts[0]), len(starts[1]), x.shape[3]))
    for (i, top), (j, left) in itertools.product(*map(enumerate, starts)):
        rows = slice(max(top, 0), top + window[0])
        columns = slice(max(left, 0), left + window[1])
        result[:, i, j] = reduce(x[:, rows, columns], axis=(1, 2))
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("function", "reduce"),
    [(pooling.max_pool, np.max), (pooling.average_pool, np.mean)],
)
def test_windows_equal_a_loop(function, reduce, size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32) - 5
    maps = jax.jit(lambda x: [function(x, *case) for case in CASES])(x)
    for case, actual in zip(CASES, maps, strict=True):
        expected = naive(x, *case, reduce)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("function", [pooling.max_pool, pooling.average_pool])
def test_type_is_kept(function):
    x = jnp.ones((1, 5, 5, 2), jnp.bfloat16)
    assert function(x, 2, 2, "same").dtype == jnp.bfloat16


def test_average_of_many_bfloat16_cells_is_exact_to_their_precision():
    x = jnp.ones((1, 64, 64, 1), jnp.bfloat16)
    assert pooling.average_pool(x, 64, 64)[0, 0, 0, 0] == 1
    assert pooling.global_average_pool(x)[0, 0] == 1


def test_global_pooling():
    x = np.random.default_rng(1).normal(size=(2, 5, 7, 3)).astype(np.float32)
    average = pooling.global_average_pool(jnp.asarray(x))
    np.testing.assert_allclose(average, x.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    largest = pooling.global_max_pool(jnp.asarray(x))
    np.testing.assert_array_equal(largest, x.max(axis=(1, 2)))


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, "same")])
@pytest.mark.parametrize("size", SIZES)
def test_gradient_goes_to_the_first_largest_cell(window, stride, padding, size):
    # Whole numbers, so that most windows have ties.
    rng = np.random.default_rng(2)
    x = rng.integers(0, 3, (2, *size, 3)).astype(np.float32)
    shape = jax.eval_shape(lambda x: pooling.max_pool(x, window, stride, padding), x)
    upstream = rng.normal(size=shape.shape).astype(np.float32)
    actual = jax.jit(
        jax.grad(
            lambda x: (pooling.max_pool(x, window, stride, padding) * upstream).sum()
        )
    )(x)
    expected = np.zeros_like(x)
    tops, lefts = (
        sides(length, window, stride, padding, axis)[0]
        for axis, length in enumerate(size)
    )
    for b, i, j, c in np.ndindex(*shape.shape):
        top, left = i * stride - tops, j * stride - lefts
        best = max(
            (
                (row, column)
                for row in range(max(top, 0), min(top + window, size[0]))
                for column in range(max(left, 0), min(left + window, size[1]))
            ),
            key=lambda cell: x[b, *cell, c],
        )
        expected[b, *best, c] += upstream[b, i, j, c]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def softmax(r):
    weights = np.exp(r - r.max(axis=(1, 2), keepdims=True))
    return weights / weights.sum(axis=(1, 2), keepdims=True)


def cells(r):
    return r.reshape(len(r), -1, r.shape[-1])


def expected_draw(r):
    positive = np.maximum(r, 0)
    total = positive.sum(axis=(1, 2), keepdims=True)
    shares = np.where(total > 0, positive / np.where(total > 0, total, 1), np.nan)
    equal = np.full_like(r, 1 / cells(r).shape[1])
    return (np.where(np.isnan(shares), equal, shares) * r).sum(axis=(1, 2))


def root_mean(r, p):
    return (np.abs(r) ** p).mean(axis=(1, 2)) ** (1 / p)


# Name → the pooling and what it does with the cells of one window, `[B, h, w, C]`.
POOLS = {
    "max": (pooling.max_pool, lambda r: r.max(axis=(1, 2))),
    "min": (pooling.min_pool, lambda r: r.min(axis=(1, 2))),
    "average": (pooling.average_pool, lambda r: r.mean(axis=(1, 2))),
    "median": (pooling.median_pool, lambda r: np.median(r, axis=(1, 2))),
    "k_max": (
        partial(pooling.k_max_pool, k=2),
        lambda r: np.sort(cells(r), axis=1)[:, -2:].mean(axis=1),
    ),
    "l2": (
        pooling.l2_pool,
        lambda r: np.sqrt((r**2).sum(axis=(1, 2))) / cells(r).shape[1],
    ),
    "lp_half": (partial(pooling.lp_pool, p=0.5), lambda r: root_mean(r, 0.5)),
    "lp_odd": (partial(pooling.lp_pool, p=3), lambda r: root_mean(r, 3)),
    "lp_channels": (
        partial(pooling.lp_pool, p=jnp.array([1.5, 2, 7])),
        lambda r: root_mean(r, np.array([1.5, 2, 7])),
    ),
    "mixed": (
        partial(pooling.mixed_pool, max_share=0.3),
        lambda r: 0.3 * r.max(axis=(1, 2)) + 0.7 * r.mean(axis=(1, 2)),
    ),
    "soft": (
        weighted_pooling.soft_pool,
        lambda r: (softmax(r) * r).sum(axis=(1, 2)),
    ),
    "stochastic": (
        partial(weighted_pooling.stochastic_pool, probabilities="proportional"),
        expected_draw,
    ),
    "lip": (
        lambda x, *window: weighted_pooling.local_importance_pool(
            x, *window, logits=jnp.cos(x)
        ),
        lambda r: (softmax(np.cos(r)) * r).sum(axis=(1, 2)),
    ),
}
WINDOWS = [
    (2, 2, "valid"),
    (3, 2, "same"),
    (2, 3, "same"),
    (3, 2, "valid"),
    (2, 3, "valid"),
    ((3, 2), (1, 3), ((1, 0), (0, 1))),
]


@pytest.mark.parametrize("name", POOLS)
def test_every_pooling_equals_a_loop(name):
    function, reduce = POOLS[name]
    x = np.random.default_rng(3).normal(size=(2, 7, 6, 3)).astype(np.float32)
    calls = jax.jit(lambda x: [function(x, *w) for w in WINDOWS] + [function(x)])
    *maps, whole = calls(jnp.asarray(x))
    for window, actual in zip(WINDOWS, maps, strict=True):
        expected = naive(x, *window, lambda r, axis: reduce(r))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole, reduce(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", POOLS)
def test_bfloat16_is_rounded_only_at_the_end(name):
    function, _ = POOLS[name]
    x = jax.random.normal(jax.random.key(4), (1, 7, 6, 3), jnp.bfloat16)

    @jax.jit
    def both(x):
        return [function(y, 3, 2, "same") for y in (x, x.astype(jnp.float32))]

    narrow, wide = both(x)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow, np.asarray(wide).astype(narrow.dtype))


def check_gradient(function, x):
    pullback = jax.jit(lambda x, upstream: jax.vjp(function, x)[1](upstream))
    forward = jax.jit(function)
    check_vjp(
        forward,
        lambda x: (forward(x), lambda upstream: pullback(x, upstream)),
        (x,),
        rtol=2e-2,
        atol=2e-2,
        eps=1e-2,
    )


@pytest.mark.parametrize("name", POOLS)
def test_gradients_away_from_ties(name):
    function, _ = POOLS[name]
    # A permutation: no two cells are closer than a finite difference can tell apart.
    x = jax.random.permutation(jax.random.key(5), 60).reshape(1, 5, 4, 3) / 15 - 1.97
    check_gradient(lambda x: [function(x, 3, 2, "same"), function(x)], x)


@pytest.mark.parametrize("name", POOLS)
def test_constant_maps_and_their_gradients(name):
    function, _ = POOLS[name]
    x = jnp.stack([jnp.zeros((4, 4, 3)), jnp.full((4, 4, 3), 2.0)])

    @jax.jit
    def gradients(x):
        windows = [(3, 2, "same"), ()]
        return [jax.grad(lambda x, w=w: function(x, *w).sum())(x) for w in windows]

    for gradient in map(np.asarray, gradients(x)):
        assert np.isfinite(gradient).all()
        if name.startswith(("l2", "lp")):
            assert (gradient[0] == 0).all()
            assert (gradient[1] > 0).all()
    if name != "l2":
        np.testing.assert_allclose(jax.jit(function)(x), [[0] * 3, [2] * 3], rtol=1e-5)


def gradient_of_one_window(function, cells):
    x = jnp.array(cells, jnp.float32).reshape(1, 1, -1, 1)
    return jax.jit(jax.grad(lambda x: function(x).sum()))(x).ravel().tolist()


def test_gradients_at_ties():
    """As the docstrings say: in the window's order, or shared."""
    median, k_max = pooling.median_pool, partial(pooling.k_max_pool, k=2)
    assert gradient_of_one_window(median, [1, 1, 1]) == [0, 1, 0]
    assert gradient_of_one_window(median, [1, 1, 1, 1]) == [0, 0.5, 0.5, 0]
    assert gradient_of_one_window(median, [3, 2, 2, 1]) == [0, 0.5, 0.5, 0]
    assert gradient_of_one_window(k_max, [1, 1, 1, 0]) == [0.5, 0.5, 0, 0]
    assert gradient_of_one_window(k_max, [0, 1, 2, 1]) == [0, 0.5, 0.5, 0]
    assert gradient_of_one_window(pooling.max_pool, [1, 1, 0]) == [1, 0, 0]
    local = partial(pooling.max_pool, window=(1, 3))
    assert gradient_of_one_window(local, [1, 1, 0]) == [1, 0, 0]
    local = partial(pooling.min_pool, window=(1, 3))
    assert gradient_of_one_window(local, [2, 1, 1]) == [0, 1, 0]


def test_a_window_of_zeros_gives_no_gradient_beside_one_that_does():
    x = jnp.array([0.0, 0.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    for function in (
        pooling.l2_pool,
        partial(pooling.lp_pool, p=0.5),
        partial(pooling.lp_pool, p=4),
    ):
        gradient = jax.jit(jax.grad(lambda x, f=function: f(x, (1, 2)).sum()))(
            x
        ).ravel()
        assert gradient[:2].tolist() == [0, 0]
        assert (np.asarray(gradient[2:]) > 0).all()


def test_the_exponent_has_a_gradient():
    x = jax.random.normal(jax.random.key(6), (2, 4, 4, 3)).at[:, :2, :2].set(0.0)

    check_gradient(
        lambda p: [pooling.lp_pool(x, 2, p=p), pooling.lp_pool(x, p=p[1])],
        jnp.array([0.7, 3, 9]),
    )


@pytest.mark.parametrize("window", [(3, 2, "same"), ()])
def test_limits(window):
    n = 9 if window else 35
    count = window_counts((5, 7), *window)
    count = count if window else count[0]

    def pairs(x):
        largest = pooling.max_pool(x, *window)
        average = pooling.average_pool(x, *window)
        magnitude = jnp.abs(x)
        yield pooling.k_max_pool(x, *window, k=1), largest
        yield pooling.k_max_pool(x, *window, k=n), average
        yield pooling.mixed_pool(x, *window, max_share=0.0), average
        yield pooling.mixed_pool(x, *window, max_share=1.0), largest
        yield pooling.min_pool(x, *window), -pooling.max_pool(-x, *window)
        yield (
            pooling.lp_pool(x, *window, p=1),
            pooling.average_pool(magnitude, *window),
        )
        # n^(-1/p), all that is left of the difference, is 1 - 4e-6 here.
        yield (
            pooling.lp_pool(x, *window, p=1e6),
            pooling.max_pool(magnitude, *window),
        )
        # L2 has its n outside the root.
        yield (
            pooling.l2_pool(x, *window) * np.sqrt(count),
            pooling.lp_pool(x, *window, p=2),
        )
        yield weighted_pooling.soft_pool(1e7 * x, *window) / 1e7, largest
        logits = jnp.zeros_like(x)
        yield (
            weighted_pooling.local_importance_pool(x, *window, logits=logits),
            average,
        )

    x = jax.random.normal(jax.random.key(7), (2, 5, 7, 3))
    for actual, expected in jax.jit(lambda x: list(pairs(x)))(x):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_the_first_largest_cell_wins_also_of_k_equal_to_one():
    x = np.random.default_rng(8).integers(0, 3, (2, 6, 6, 2)).astype(np.float32)
    gradients = [
        jax.jit(jax.grad(lambda x, f=function: (f(x, 3, 2, "same") ** 2).sum()))(x)
        for function in (pooling.max_pool, partial(pooling.k_max_pool, k=1))
    ]
    np.testing.assert_allclose(*gradients)


# Beside `POOLS`, those that pool in another way.
NAN_POOLS = {name: function for name, (function, _) in POOLS.items()} | {
    f"draw_{probabilities}": partial(
        weighted_pooling.stochastic_pool,
        key=jax.random.key(10),
        probabilities=probabilities,
    )
    for probabilities in weighted_pooling.PROBABILITIES
}


@pytest.mark.parametrize("name", NAN_POOLS)
def test_nan_comes_out_of_the_windows_that_hold_it_and_of_no_other(name):
    function = NAN_POOLS[name]
    x = jnp.array([[np.nan, 1, 5, 6, 7], [9, 2, 7, 8, 3]]).reshape(1, 2, 5, 1)
    x = jnp.broadcast_to(x, (1, 2, 5, 3))

    @jax.jit
    def pools(x):
        local = [(2, 2, "valid"), (2, 2, "same"), (2, 1, 1)]
        return [function(x, *w) for w in local] + [function(x, Bins(1, 3)), function(x)]

    valid, same, padded, bins, whole = (np.isnan(y)[..., 0] for y in pools(x))
    assert valid.tolist() == [[[True, False]]]
    assert same.tolist() == [[[True, False, False]]]
    assert padded[0].tolist() == [[True] * 2 + [False] * 4] * 2 + [[False] * 6]
    # Bins of two, three and two cells, the first filled up to three.
    assert bins.tolist() == [[[True, False, False]]]
    assert whole.all()
    (mirrored,) = jax.jit(lambda x: [function(x, Bins(1, 3))])(x[:, :, ::-1])
    assert np.isnan(mirrored)[..., 0].tolist() == [[[False, False, True]]]
