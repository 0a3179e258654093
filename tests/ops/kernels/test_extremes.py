"""The largest and smallest cells of windows: both ways, at ties and at NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fpn_jax.ops.kernels import extremes

CASES = [
    # size, window, stride, padding
    ((6, 6), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((7, 6), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((8, 8), (3, 3), (2, 2), ((0, 1), (0, 1))),
    ((5, 7), (3, 2), (1, 3), ((1, 1), (0, 1))),
    ((9, 9), (2, 2), (3, 3), ((0, 0), (0, 0))),
    ((20, 20), (17, 17), (1, 1), ((8, 8), (8, 8))),
    ((3, 3), (1, 1), (2, 2), ((0, 0), (0, 0))),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize(("size", "window", "stride", "padding"), CASES)
def test_both_ways_agree_with_their_gradients_at_ties(
    size, window, stride, padding, larger, dtype
):
    rng = np.random.default_rng(0)
    # Few values: most windows hold ties, which both ways must give to the first cell.
    x = jnp.asarray(rng.integers(-2, 3, (2, *size, 3)), dtype)
    place = (larger, window, stride, padding)
    ours, pull = jax.vjp(lambda x: extremes._extreme_of_taps(x, *place), x)
    theirs, expected = jax.vjp(lambda x: extremes._reduce_window(x, *place), x)
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, theirs)
    # Whole numbers: their sums are exact in either type and any order.
    cotangent = jnp.asarray(rng.integers(-3, 4, ours.shape), dtype)
    np.testing.assert_array_equal(pull(cotangent)[0], expected(cotangent)[0])


@pytest.mark.parametrize("larger", [True, False])
def test_windows_that_hold_a_nan_give_nan(larger):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1).at[0, 1, 2, 0].set(jnp.nan)
    place = ((2, 2), (2, 2), ((0, 0), (0, 0)))
    y = extremes.sliding_extremes(x, larger, *place)[0, :, :, 0]
    assert np.isnan(y).tolist() == [[False, True], [False, False]]


def test_the_gradient_differentiates_again():
    # A tenth apart: no step of the numeric derivative changes the order.
    x = jax.random.permutation(jax.random.key(0), jnp.arange(50) / 10)
    x = x.reshape(1, 5, 5, 2)
    place = (True, (3, 3), (2, 2), ((1, 1), (1, 1)))
    check_grads(
        lambda x: jnp.square(extremes.sliding_extremes(x, *place)),
        (x,),
        order=2,
        modes=["rev"],
        atol=5e-2,
        rtol=5e-2,
    )


@pytest.mark.parametrize("larger", [True, False])
def test_of_equal_cells_the_first_takes_the_whole_gradient(larger):
    values = jnp.array([[1.0, 1.0], [2.0, 1.0], [2.0, -jnp.inf]])
    extreme, pull = jax.vjp(lambda v: extremes.extreme_cells(v, larger, 0), values)
    expected = {True: [2.0, 1.0], False: [1.0, -np.inf]}[larger]
    assert extreme.tolist() == expected
    (gradient,) = pull(jnp.array([3.0, 5.0]))
    expected = {True: [[0, 5], [3, 0], [0, 0]], False: [[3, 0], [0, 0], [0, 5]]}
    assert gradient.tolist() == expected[larger]


def test_an_extreme_among_nan_is_nan():
    values = jnp.array([1.0, jnp.nan, 3.0])
    assert jnp.isnan(extremes.extreme_cells(values, True, 0))
    assert jnp.isnan(extremes.extreme_cells(values, False, 0))


def test_the_gradient_remembers_places_and_no_value():
    # Values kept for it might be computed again and rounded another way.
    x = jnp.linspace(0.1, 1.0, 12).reshape(2, 6)
    _, pull = jax.vjp(lambda v: extremes.extreme_cells(v, True, 1), x)
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size > 1]
    assert kept
    floats = [leaf for leaf in kept if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert not any(leaf.any() for leaf in floats)
