"""Taps of windows: `spread` is the transpose of `shifted`."""

import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops.kernels import taps

CASES = [
    # size, window, stride, padding, dilation
    ((5, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((6, 7), (3, 2), (2, 1), ((0, 1), (0, 0)), (1, 1)),
    ((9, 8), (2, 2), (3, 3), ((0, 0), (1, 0)), (1, 1)),
    ((7, 8), (3, 3), (2, 2), ((2, 2), (2, 2)), (2, 2)),
    ((11, 10), (3, 3), (3, 3), ((1, 1), (1, 1)), (3, 1)),
    ((4, 4), (5, 5), (1, 2), ((2, 2), (2, 2)), (1, 1)),
]


@pytest.mark.parametrize(("size", "window", "stride", "padding", "dilation"), CASES)
def test_spread_is_the_transpose_of_shifted(size, window, stride, padding, dilation):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32)
    met = taps.shifted(x, window, stride, padding, dilation)
    assert len(met) == np.prod(window)
    weights = jnp.asarray(rng.normal(size=(len(met), 3)), jnp.float32)
    v = jnp.asarray(rng.normal(size=met[0].shape), jnp.float32)
    back = taps.spread(
        lambda tap, v: v * weights[tap], [v], size, window, stride, padding, dilation
    )
    assert back.shape == x.shape
    forth = sum(jnp.vdot(tap * w, v) for tap, w in zip(met, weights, strict=True))
    np.testing.assert_allclose(jnp.vdot(x, back), forth, rtol=1e-4)


def test_shifted_fills_what_lies_outside():
    x = jnp.ones((1, 2, 2, 1))
    met = taps.shifted(x, (3, 3), (1, 1), ((1, 1), (1, 1)), fill=-jnp.inf)
    assert met[0][0, :, :, 0].tolist() == [[-np.inf, -np.inf], [-np.inf, 1.0]]
