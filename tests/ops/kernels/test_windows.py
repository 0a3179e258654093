"""Windows against a plain loop over the cells of a map, and the ways around them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import errors
from fpn_jax.ops.kernels import windows as ops
from fpn_jax.ops.kernels.windows import Bins

CASES = [
    # window, stride, padding, starts of the rows and of the columns of a 5 × 7 map
    (2, 2, "valid", [0, 2], [0, 2, 4]),
    (2, None, "valid", [0, 2], [0, 2, 4]),
    (3, 2, "same", [-1, 1, 3], [-1, 1, 3, 5]),
    (2, 3, "same", [0, 3], [0, 3, 6]),
    ((3, 2), (1, 3), 1, [-1, 0, 1, 2, 3], [-1, 2, 5]),
    (2, 2, ((1, 0), (0, 1)), [-1, 1, 3], [0, 2, 4, 6]),
]


def spans(window, starts):
    return [range(max(start, 0), start + window) for start in starts]


def edges(window, rows, columns):
    """Returns the rows and the columns of every window of a 5 × 7 map."""
    height, width = (window, window) if isinstance(window, int) else window
    rows = [[i for i in span if i < 5] for span in spans(height, rows)]
    return rows, [[j for j in span if j < 7] for span in spans(width, columns)]


@pytest.mark.parametrize(("window", "stride", "padding", "tops", "lefts"), CASES)
def test_windows_hold_the_cells_of_a_loop(window, stride, padding, tops, lefts):
    x = np.arange(2 * 5 * 7 * 2, dtype=np.float32).reshape(2, 5, 7, 2)
    values = jax.jit(lambda x: ops.windows(x, window, stride, padding).values)(x)
    inside = ops.windows(x, window, stride, padding).inside
    rows, columns = edges(window, tops, lefts)
    assert inside.shape[:2] == (len(rows), len(columns))
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        actual = np.asarray(values)[:, i, j][:, inside[i, j]]
        expected = [x[:, r, c] for r in row for c in column]
        np.testing.assert_array_equal(actual, np.stack(expected, axis=1))


@pytest.mark.parametrize(("n", "m"), [(7, 1), (7, 2), (7, 3), (8, 4), (5, 5), (3, 7)])
def test_bins_cover_the_map_and_hold_a_cell_each(n, m):
    x = jnp.arange(n, dtype=jnp.float32).reshape(1, n, 1, 1)
    values, inside = ops.windows(x, Bins(m, 1))
    found = [np.asarray(values)[0, i, 0, inside[i, 0], 0].tolist() for i in range(m)]
    assert found == [list(range(i * n // m, -(-(i + 1) * n // m))) for i in range(m)]
    assert all(found)
    assert {cell for cells in found for cell in cells} == set(range(n))


def every_window():
    whole = [(None, None, "valid"), (Bins(2, 3), None, "valid")]
    return whole + [case[:3] for case in CASES] + [(Bins(6, 9), None, "valid")]


@pytest.mark.parametrize(("window", "stride", "padding"), every_window())
def test_fast_ways_equal_the_windows(window, stride, padding):
    @jax.jit
    def ways(x):
        return (
            ops.windows(x, window, stride, padding).values,
            ops.window_means(x, window, stride, padding),
            ops.window_extremes(x, True, window, stride, padding),
            ops.window_extremes(x, False, window, stride, padding),
        )

    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32) - 2
    values, means, largest, smallest = map(np.asarray, ways(x))
    inside = ops.windows(x, window, stride, padding).inside[..., None]
    cells = np.ma.masked_array(values, ~np.broadcast_to(inside, values.shape))
    np.testing.assert_allclose(means, cells.mean(axis=3), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(largest, cells.max(axis=3))
    np.testing.assert_array_equal(smallest, cells.min(axis=3))
    counts = ops.window_counts((5, 7), window, stride, padding)
    np.testing.assert_array_equal(counts, inside.sum(axis=2))


def test_gradient_of_windows_counts_how_often_a_cell_is_seen():
    x = jnp.zeros((1, 4, 4, 1))

    def seen(*window):
        def total(x):
            values, inside = ops.windows(x, *window)
            return jnp.where(inside[..., None], values, 0).sum()

        return jax.jit(jax.grad(total))(x)[0, :, :, 0].tolist()

    assert seen(3, 1, "valid")[0] == [1, 2, 2, 1]
    assert seen(3, 1, "valid")[1] == [2, 4, 4, 2]
    assert seen(Bins(3, 1))[1] == [2] * 4
    assert seen(None)[0] == [1] * 4


@pytest.mark.parametrize(
    ("window", "stride", "padding", "words"),
    [
        (6, 1, "valid", ["window is 6", "5 × 7", "'valid'"]),
        ((3, 8), 1, ((0, 0), (0, 0)), ["window is (3, 8)", "5 × 7"]),
        (0, 1, "valid", ["window is 0", "at least 1"]),
        (2.0, 1, "valid", ["window is 2.0"]),
        ((1, 2, 3), 1, "valid", ["window is (1, 2, 3)"]),
        (2, 0, "valid", ["stride is 0", "at least 1"]),
        (2, (1, -1), "valid", ["stride is (1, -1)"]),
        (2, 2, "SAME", ["padding 'SAME'", "symmetric, same, valid"]),
        (2, 2, "symmetric", ["window is (2, 2)", "no middle"]),
        (2, 2, 2, ["padding is 2", "window 2", "fewer"]),
        (2, 2, ((0, 0), (0, -1)), ["padding", "at least 0"]),
        (2, 2, (1, 1), ["padding is (1, 1)", "(before, after)"]),
        (None, 2, "valid", ["stride is 2", "whole map"]),
        (None, None, "same", ["padding is 'same'", "whole map"]),
        (Bins(2, 2), 2, "valid", ["stride is 2", "bins"]),
    ],
)
def test_what_fits_no_map_is_named(window, stride, padding, words):
    x = jnp.zeros((1, 5, 7, 1))
    for function in (
        ops.windows,
        ops.window_means,
        lambda x, *window: ops.window_extremes(x, True, *window),
        lambda x, *window: ops.window_counts(x.shape[1:3], *window),
    ):
        with pytest.raises(errors.InputError) as raised:
            function(x, window, stride, padding)
        assert all(word in str(raised.value) for word in words), raised.value


def test_bins_below_one_are_refused():
    with pytest.raises(errors.InputError, match=r"bins is \(0, 2\)"):
        Bins(0, 2)
