import jax
import numpy as np
import pytest

from fpn_jax.ops.kernels import resampling

KERNELS = {
    "triangle": (1, lambda t: np.maximum(1 - np.abs(t), 0)),
    "lanczos": (3, lambda t: np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0)),
}


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("factor", [2, 3, 8])
@pytest.mark.parametrize("name", KERNELS)
def test_taps_equal_the_product_in_value_and_gradient(name, factor, axis):
    support, kernel = KERNELS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 1 + axis, 3)).astype(np.float32)
    n = x.shape[axis]
    whole = resampling._weights(n, factor * n, kernel, support, False, False)
    few = resampling._weights_of_taps(factor, kernel, support)

    @jax.jit
    def both(x, cotangent):
        results = []
        for function in (
            lambda x: resampling._product(x, whole, axis),
            resampling._by_taps(few, axis),
        ):
            y, pull = jax.vjp(function, x)
            results.append((y, *pull(cotangent)))
        return results

    shape = list(x.shape)
    shape[axis] *= factor
    cotangent = rng.normal(size=shape).astype(np.float32)
    for ours, theirs in zip(*both(x, cotangent), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
