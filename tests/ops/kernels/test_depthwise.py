"""Depthwise convolution: both ways of computing it, and its definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops.kernels import depthwise

CASES = [
    # kernel, stride, padding, dilation, height, width
    (3, 1, ((1, 1), (1, 1)), 1, 5, 7),
    (3, 2, ((1, 1), (1, 1)), 1, 6, 7),
    (3, 2, ((0, 1), (0, 1)), 1, 6, 8),
    (5, 2, ((2, 2), (2, 2)), 1, 7, 6),
    (3, 1, ((2, 2), (2, 2)), 2, 6, 5),
    (3, 2, ((2, 2), (2, 2)), 2, 7, 8),
    (2, 3, ((0, 0), (1, 0)), 1, 9, 8),
    (1, 2, ((0, 0), (0, 0)), 1, 5, 5),
    (3, 3, ((1, 1), (1, 1)), 3, 11, 10),
]


def arrays(kernel_size, height, width, channels=3, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, channels))
    kernel = rng.normal(size=(kernel_size, kernel_size, 1, channels))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def value_and_gradients(call, x, kernel, cotangent):
    def pulled(x, kernel, cotangent):
        y, pull = jax.vjp(call, x, kernel)
        return y, pull(cotangent)

    return jax.jit(pulled)(x, kernel, cotangent)


def naive(x, kernel, stride, padding, dilation):
    x, kernel = np.pad(x, ((0, 0), *padding, (0, 0))), np.asarray(kernel)
    size = kernel.shape[0]
    span = dilation * (size - 1) + 1
    rows = range(0, x.shape[1] - span + 1, stride)
    columns = range(0, x.shape[2] - span + 1, stride)
    y = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = x[:, top : top + span : dilation, left : left + span : dilation]
            y[:, i, j] = (window * kernel[:, :, 0]).sum(axis=(1, 2))
    return y


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation", "height", "width"), CASES
)
def test_both_ways_are_the_definition_and_have_its_gradient(
    size, stride, padding, dilation, height, width
):
    x, kernel = arrays(size, height, width)
    expected = naive(x, kernel, stride, padding, dilation)
    ours = functools.partial(
        depthwise.depthwise_conv, stride=stride, padding=padding, dilation=dilation
    )
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    rng = np.random.default_rng(1)
    cotangent = rng.normal(size=expected.shape).astype(np.float32)
    results = []
    for call in (ours, functools.partial(depthwise._grouped_conv, **options)):
        y, gradients = value_and_gradients(call, x, kernel, cotangent)
        np.testing.assert_allclose(y, expected, atol=1e-5)
        results.append(gradients)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), *results)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 2, 1), (5, 1, 1)])
def test_named_paddings_are_the_library_s(padding, size, stride, dilation):
    x, kernel = arrays(size, 8, 7)
    expected = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding.upper(),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    y = depthwise.depthwise_conv(x, kernel, stride, padding, dilation)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_sums_are_float32_in_bfloat16():
    x, kernel = arrays(5, 9, 9, dtype=jnp.bfloat16)
    call = functools.partial(depthwise.depthwise_conv, stride=2)
    cotangent = jnp.ones((2, 5, 5, 3), jnp.bfloat16)
    y, ours = value_and_gradients(call, x, kernel, cotangent)
    exact, theirs = value_and_gradients(call, *map(jnp.float32, (x, kernel, cotangent)))
    # As near as the type's own rounding, whatever the number of taps.
    for narrow, wide in zip((y, *ours), (exact, *theirs), strict=True):
        assert narrow.dtype == jnp.bfloat16
        np.testing.assert_array_equal(narrow, np.asarray(wide).astype(jnp.bfloat16))


def test_a_cpu_never_sees_the_grouped_convolution():
    call = jax.jit(jax.grad(lambda x, k: depthwise.depthwise_conv(x, k).sum(), (0, 1)))
    lowered = call.lower(*arrays(3, 6, 6))
    assert "stablehlo.convolution" not in lowered.as_text()
    gpu = call.trace(*arrays(3, 6, 6)).lower(lowering_platforms=("cuda",)).as_text()
    assert "feature_group_count = 3" in gpu


def test_other_channels_are_refused():
    x, kernel = arrays(3, 6, 6)
    with pytest.raises(ValueError, match=r"for 2 channels it must be \[k, k', 1, 2\]"):
        depthwise.depthwise_conv(x[..., :2], kernel)
