"""Convolution: sums of matrix products equal XLA's own, in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fpn_jax.ops.kernels.convolution import convolve

CASES = [
    # window, stride, padding, dilation, height, width, whether products are summed
    ((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 5, 4, True),
    ((1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 5, 4, True),
    ((1, 1), (2, 3), ((1, 0), (0, 2)), (1, 1), 5, 4, True),
    ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2, 2, True),
    ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 1, True),
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 4, 4, True),
    ((3, 3), (2, 2), "same", (1, 1), 4, 3, True),
    ((5, 3), (1, 2), ((2, 2), (1, 1)), (1, 1), 3, 4, True),
    ((7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 8, 8, True),
    ((3, 3), (1, 1), ((6, 6), (6, 6)), (6, 6), 5, 7, True),
    ((3, 3), (1, 1), ((6, 6), (6, 6)), (6, 6), 7, 5, True),
    ((3, 3), (2, 1), ((4, 4), (2, 2)), (4, 2), 4, 9, True),
    ((2, 2), (1, 1), "valid", (1, 1), 2, 2, True),
    ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 5, 4, False),
    ((3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 5, 4, False),
    ((3, 3), (2, 2), "same", (1, 1), 7, 8, False),
    ((5, 5), (1, 1), "valid", (1, 1), 9, 9, False),
]


def naive(x, kernel, stride, padding, dilation):
    """Returns the definition, written out in float64."""
    if isinstance(padding, str):
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape, strict=False)]
        rule = padding.upper()
        padding = jax.lax.padtype_to_pads(x.shape[1:3], spans, stride, rule)
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    kernel = np.asarray(kernel, np.float64)
    spans = [d * (k - 1) for d, k in zip(dilation, kernel.shape, strict=False)]
    rows = range(0, x.shape[1] - spans[0], stride[0])
    columns = range(0, x.shape[2] - spans[1], stride[1])
    y = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            for u, v in np.ndindex(*kernel.shape[:2]):
                cell = x[:, top + dilation[0] * u, left + dilation[1] * v]
                y[:, i, j] += cell @ kernel[u, v]
    return y


def xla(x, kernel, stride, padding, dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        stride,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def arrays(window, height, width, dtype=jnp.float32, images=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, height, width, 3))
    kernel = rng.normal(size=(*window, 3, 4))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "dilation", "height", "width", "summed"), CASES
)
def test_value_and_gradient_are_the_definitions(
    window, stride, padding, dilation, height, width, summed
):
    x, kernel = arrays(window, height, width)
    place = {"stride": stride, "padding": padding, "dilation": dilation}
    ours = jax.jit(functools.partial(convolve, **place))
    y, pull = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(y, naive(x, kernel, **place), atol=1e-5)
    theirs, expected = jax.vjp(functools.partial(xla, **place), x, kernel)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)
    assert theirs.shape == y.shape
    for ours, theirs in zip(pull(cotangent), expected(cotangent), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the choice is a CPU's")
@pytest.mark.parametrize(
    ("window", "stride", "padding", "dilation", "height", "width", "summed"), CASES
)
def test_products_are_summed_where_they_are_fast(
    window, stride, padding, dilation, height, width, summed
):
    ours = functools.partial(
        convolve, stride=stride, padding=padding, dilation=dilation
    )
    lowered = jax.jit(ours).lower(*arrays(window, height, width)).as_text()
    assert ("stablehlo.convolution" not in lowered) == summed


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the choice is a CPU's")
@pytest.mark.parametrize(
    ("images", "size", "summed"),
    [(12, 4, True), (11, 4, False), (8, 5, True), (12, 6, False), (300, 4, False)],
)
def test_small_maps_are_summed_in_batches_that_gain(images, size, summed):
    x, kernel = arrays((3, 3), size, size, images=images)
    ours = functools.partial(convolve, padding=((1, 1), (1, 1)))
    lowered = jax.jit(ours).lower(x, kernel).as_text()
    assert ("stablehlo.convolution" not in lowered) == summed
    y, pull = jax.vjp(ours, x, kernel)
    place = ((1, 1), ((1, 1), (1, 1)), (1, 1))
    theirs, expected = jax.vjp(lambda x, k: xla(x, k, *place), x, kernel)
    np.testing.assert_allclose(y, theirs, atol=1e-5)
    for ours, theirs in zip(pull(y), expected(y), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-3)


def test_bfloat16_is_summed_in_float32():
    x, kernel = arrays((3, 3), 2, 2, jnp.bfloat16)
    y = convolve(x, kernel, (1, 1), ((1, 1), (1, 1)))
    assert y.dtype == jnp.bfloat16
    expected = naive(x, kernel, (1, 1), ((1, 1), (1, 1)), (1, 1))
    # Half a unit in the last place of 8 bits: the sum itself was not rounded.
    np.testing.assert_allclose(
        np.asarray(y, np.float64), expected, rtol=2**-8, atol=1e-5
    )


def test_forward_mode_and_second_derivatives():
    x, kernel = arrays((3, 3), 2, 2)
    ours = functools.partial(convolve, padding=((1, 1), (1, 1)))
    check_grads(ours, (x, kernel), order=2, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("height", [0, 3])
def test_maps_that_hold_no_window_give_none(height):
    x = jnp.zeros((1, height, 4, 3))
    y = convolve(x, jnp.zeros((5, 3, 3, 4)), padding="valid")
    assert y.shape == (1, 0, 2, 4)
