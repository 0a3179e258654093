"""Upsampling layers: sizes, types, initial values, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.layers import upsampling as layers
from fpn_jax.ops import upsampling

X = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
LEARNED = ("transposed", "sub_pixel", "resize_convolution")


def run(layer, size, x=X):
    """Returns the parameters and the result."""

    def init_and_apply(x):
        variables = layer.init(jax.random.key(0), x, size)
        return variables.get("params", {}), layer.apply(variables, x, size)

    return jax.jit(init_and_apply)(x)


@pytest.mark.parametrize("name", layers.names())
@pytest.mark.parametrize("size", [(6, 8), (5, 8), (5, 7)])
def test_every_one_gives_the_next_finer_level(name, size):
    layer = layers.build(name)
    shapes = jax.eval_shape(
        lambda x: layer.init_with_output(jax.random.key(0), x, size), X
    )
    y, variables = shapes
    assert (y.shape, y.dtype) == ((2, *size, 6), jnp.float32)
    assert bool(variables) == (name in LEARNED)


@pytest.mark.parametrize("name", LEARNED)
def test_width_and_type_are_the_arguments(name):
    layer = layers.build(name, features=5, dtype=jnp.bfloat16)
    params, y = run(layer, (5, 7), X.astype(jnp.bfloat16))
    assert (y.shape, y.dtype) == ((2, 5, 7, 5), jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("nearest", {}),
        ("bilinear", {"antialias": True}),
        ("bilinear", {"align_corners": True}),
        ("bicubic", {"coefficient": -0.75}),
        ("bicubic", {"align_corners": True}),
        ("bicubic", {"antialias": True}),
        ("lanczos", {"antialias": False}),
    ],
)
def test_arguments_reach_the_function(name, arguments):
    _, y = run(layers.build(name, **arguments), (2, 7))
    expected = upsampling.RESIZINGS[name](X, (2, 7), **arguments)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    if arguments:
        assert not np.allclose(y, upsampling.RESIZINGS[name](X, (2, 7)), atol=1e-3)


def test_the_table_of_layers_has_every_resizing():
    assert set(upsampling.RESIZINGS) == set(layers.names()) - {*LEARNED, "bed_of_nails"}


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_bed_of_nails_puts_cells_at_even_places(size):
    _, y = run(layers.BedOfNails(), size)
    np.testing.assert_array_equal(y[:, ::2, ::2], X)
    assert np.count_nonzero(y) == X.size
    assert y.shape == (2, *size, 6)


def test_sub_pixel_starts_as_nearest_upsampling_of_a_convolution():
    layer = layers.SubPixel(features=5)
    params, y = run(layer, (6, 7))
    kernel = params["conv"]["kernel"]
    assert kernel.shape == (3, 3, 6, 20)
    base = jax.lax.conv_general_dilated(
        *(X, kernel[..., ::4], (1, 1), "SAME"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = upsampling.resize_nearest(base, (6, 8))[:, :, :7]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert np.std(kernel[..., ::4]) > 0


@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_transposed_is_twice_as_large_whatever_its_kernel(kernel_size):
    params, y = run(layers.Transposed(5, kernel_size), (6, 7))
    assert params["kernel"].shape == (kernel_size, kernel_size, 6, 5)
    half = (kernel_size - 1) // 2
    full = upsampling.transposed_conv(X, params["kernel"], 2)
    expected = full[:, half : half + 6, half : half + 7]
    rows, columns = expected.shape[1:3]
    np.testing.assert_allclose(y[:, :rows, :columns], expected, atol=1e-5)


def test_transposed_starts_with_the_variance_of_its_map():
    x = jax.random.normal(jax.random.key(1), (1, 16, 16, 64))
    _, y = run(layers.Transposed(64), (32, 32), x)
    assert float(y.std()) == pytest.approx(1, abs=0.1)


def test_resize_convolution_is_a_resize_and_a_convolution():
    layer = layers.ResizeConvolution(5, resizing="bilinear")
    params, y = run(layer, (9, 2))
    expected = jax.lax.conv_general_dilated(
        *(upsampling.resize_bilinear(X, (9, 2)), params["conv"]["kernel"], (1, 1)),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["bed_of_nails", "transposed", "sub_pixel"])
@pytest.mark.parametrize("size", [(7, 8), (6, 6), (12, 16)])
def test_any_other_size_is_refused(name, size):
    layer = layers.build(name)
    with pytest.raises(InputError, match=r"size is .* 3 × 4 cells by 2 gives 6 or 5"):
        jax.eval_shape(lambda x: layer.init(jax.random.key(0), x, size), X)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("nearst", {}, "upsampling 'nearst' is unknown; did you mean 'nearest'"),
        ("lanczos", {"align_corners": True}, "'align_corners' is unknown"),
        ("nearest", {"antialias": True}, "'antialias' is unknown"),
        ("bed_of_nails", {"factor": 3}, "'factor' is unknown"),
        ("bilinear", {"antialias": True, "align_corners": True}, "both on"),
        ("bicubic", {"antialias": True, "align_corners": True}, "both on"),
        ("transposed", {"kernel_size": 1}, "kernel_size is 1; .* at least 2"),
        ("sub_pixel", {"kernel_size": 2}, "kernel_size is 2; it must be odd"),
        ("sub_pixel", {"features": 0}, "features is 0"),
        ("resize_convolution", {"kernel_size": 4}, "kernel_size is 4"),
        ("resize_convolution", {"resizing": "cubic"}, "resizing 'cubic' is unknown"),
    ],
)
def test_what_is_not_understood_is_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        layers.build(name, **arguments)
