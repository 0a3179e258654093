"""One padding for every kind of window, against XLA's rule and against each other."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.layers.conv import conv
from fpn_jax.ops.kernels.convolution import convolve
from fpn_jax.ops.kernels.depthwise import depthwise_conv
from fpn_jax.ops.kernels.padding import resolve
from fpn_jax.ops.kernels.windows import windows

EVERY_FORM = ["symmetric", "same", "valid", 1, ((1, 0), (0, 2))]


@pytest.mark.parametrize("name", ["same", "valid"])
@pytest.mark.parametrize(
    "case", list(itertools.product([5, 8], [2, 3, 7], [1, 2], [1, 3]))
)
def test_same_and_valid_are_the_rules_of_xla(name, case):
    size, taps, stride, dilation = case
    extent = dilation * (taps - 1) + 1
    expected = jax.lax.padtype_to_pads([size], [extent], [stride], name.upper())
    found = resolve(name, (size,) * 2, (taps,) * 2, (stride,) * 2, (dilation,) * 2)
    assert found == tuple(expected) * 2


@pytest.mark.parametrize(
    "case", list(itertools.product([5, 8], [1, 3, 7], [1, 2], [1, 3]))
)
def test_symmetric_pads_both_sides_alike_at_any_stride(case):
    size, taps, stride, dilation = case
    ((before, after), _) = resolve(
        "symmetric", (size,) * 2, (taps, 1), (stride,) * 2, (dilation,) * 2
    )
    assert before == after
    extent = dilation * (taps - 1) + 1
    windows_along = (size + before + after - extent) // stride + 1
    assert windows_along == math.ceil(size / stride)


def test_height_and_width_have_their_own_padding():
    assert resolve("symmetric", (8, 8), (3, 1), (1, 1), (2, 2)) == ((2, 2), (0, 0))
    assert resolve("same", (8, 7), (3, 3), (2, 2)) == ((0, 1), (1, 1))
    assert resolve(2, (8, 7), (3, 3), (2, 2)) == ((2, 2), (2, 2))
    assert resolve([(1, np.int64(0)), [0, 2]], (8, 7), (3, 3), (2, 2)) == (
        (1, 0),
        (0, 2),
    )


@pytest.mark.parametrize("padding", EVERY_FORM)
def test_convolutions_and_windows_read_every_form_alike(padding):
    """A convolution by ones is the sum of a window's cells, padding counted as 0."""
    x = jax.random.normal(jax.random.key(0), (1, 6, 7, 1))
    ones = jnp.ones((3, 3, 1, 1))
    values, _ = windows(x, 3, 2, padding)
    expected = values.sum(axis=3)
    layer = conv(1, 3, 2, dtype=jnp.float32, name="conv", padding=padding)
    for found in (
        convolve(x, ones, (2, 2), padding),
        depthwise_conv(x, ones, 2, padding),
        layer.apply({"params": {"kernel": ones}}, x),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("padding", "says"),
    [
        ("SAME", "padding 'SAME' is unknown; choose one of symmetric, same, valid"),
        ("samee", "padding 'samee' is unknown; did you mean 'same'"),
        ("symmetric", r"symmetric', but the window is \(4, 3\)"),
        (-1, "padding is -1; it must be one of symmetric, same, valid, a number"),
        (1.0, "padding is 1.0"),
        (True, "padding is True"),
        (None, "padding is None"),
        ((1, 1), r"padding is \(1, 1\)"),
        (((1, 1), (1,)), r"padding is \(\(1, 1\), \(1,\)\)"),
        (((0, 0), (0, -1)), "each at least 0"),
    ],
)
def test_what_is_no_padding_is_refused(padding, says):
    with pytest.raises(InputError, match=says):
        resolve(padding, (8, 8), (4, 3), (1, 1))
