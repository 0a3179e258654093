"""Upsampling against PyTorch and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fpn_jax.layers.upsampling import ResizeConvolution, Transposed
from fpn_jax.ops.unpooling import max_pool_with_indices, max_unpool
from fpn_jax.ops.upsampling import (
    depth_to_space,
    resize_bicubic,
    resize_bilinear,
    resize_lanczos,
    resize_nearest,
    space_to_depth,
    transposed_conv,
)
from tests.parity.peers import from_torch, relative_difference, to_torch, torch

X = np.random.default_rng(0).normal(size=(2, 9, 7, 3)).astype(np.float32)
SIZES = [(18, 5), (4, 13), (9, 1)]
LIMIT = 1e-5


def interpolate(size, mode, **options):
    return from_torch(
        torch.nn.functional.interpolate(to_torch(X), size, mode=mode, **options)
    )


@pytest.mark.parametrize("size", SIZES)
def test_nearest(size):
    ours = jax.jit(lambda x: resize_nearest(x, size))(X)
    np.testing.assert_array_equal(ours, interpolate(size, "nearest"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options", [{}, {"align_corners": True}, {"antialias": True}], ids=str
)
def test_bilinear_and_bicubic(size, options):
    # PyTorch's cubic is Keys' with antialiasing, and a sharper one without.
    coefficient = -0.5 if "antialias" in options else -0.75

    @jax.jit
    def resize(x):
        cubic = resize_bicubic(x, size, coefficient=coefficient, **options)
        return resize_bilinear(x, size, **options), cubic

    for ours, mode in zip(resize(X), ("bilinear", "bicubic"), strict=True):
        theirs = interpolate(size, mode, **options)
        assert relative_difference(ours, theirs) < LIMIT


@pytest.mark.parametrize("size", SIZES)
def test_pillow(size):
    @jax.jit
    def resize(x):
        linear = resize_bilinear(x, size, antialias=True)
        return linear, resize_bicubic(x, size, antialias=True), resize_lanczos(x, size)

    filters = Image.Resampling
    for ours, resample in zip(
        resize(X), (filters.BILINEAR, filters.BICUBIC, filters.LANCZOS), strict=True
    ):
        image = Image.fromarray(X[1, :, :, 2])
        theirs = np.asarray(image.resize(size[::-1], resample))
        assert relative_difference(ours[1, :, :, 2], theirs) < LIMIT


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, 2, 0), (2, 3, 1), (3, 2, 1)]
)
def test_max_unpooling(window, stride, padding):
    pool = torch.nn.functional.max_pool2d(
        to_torch(X), window, stride, padding, return_indices=True
    )
    values, indices = jax.jit(
        lambda x: max_pool_with_indices(x, window, stride, padding)
    )(X)
    np.testing.assert_array_equal(values, from_torch(pool[0]))
    np.testing.assert_array_equal(indices, from_torch(pool[1]))
    theirs = torch.nn.functional.max_unpool2d(
        *pool, window, stride, padding, output_size=X.shape[1:3]
    )
    ours = max_unpool(values, indices, X.shape[1:3])
    assert relative_difference(ours, from_torch(theirs)) < LIMIT


def test_pixel_shuffle():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 18)).astype(np.float32)
    theirs = torch.nn.functional.pixel_shuffle(to_torch(x), 3)
    np.testing.assert_array_equal(depth_to_space(x, 3), from_torch(theirs))
    x = np.random.default_rng(1).normal(size=(2, 4, 6, 3)).astype(np.float32)
    theirs = torch.nn.functional.pixel_unshuffle(to_torch(x), 2)
    np.testing.assert_array_equal(space_to_depth(x, 2), from_torch(theirs))


@pytest.mark.parametrize(
    ("size", "stride", "padding", "output_padding", "dilation"),
    [
        (2, 2, 0, 0, 1),
        (3, 2, 1, 1, 1),
        (4, 2, 1, 0, 1),
        (3, 3, 2, 2, 2),
        (2, 1, 3, 0, 1),
    ],
)
def test_transposed_convolution(size, stride, padding, output_padding, dilation):
    numbers = (stride, padding, output_padding, dilation)
    layer = torch.nn.ConvTranspose2d(
        *(3, 4, size, stride, padding, output_padding),
        dilation=dilation,
        bias=False,
    )
    kernel = layer.weight.detach().permute(2, 3, 0, 1).numpy()
    with torch.no_grad():
        theirs = from_torch(layer(to_torch(X)))
    ours = jax.jit(lambda x: transposed_conv(x, kernel, *numbers))(X)
    assert relative_difference(ours, theirs) < LIMIT


def test_the_transposed_layer():
    peer = torch.nn.ConvTranspose2d(3, 4, 2, 2)
    params = {
        "kernel": jnp.asarray(peer.weight.detach().permute(2, 3, 0, 1).numpy()),
        "bias": jnp.asarray(peer.bias.detach().numpy()),
    }
    with torch.no_grad():
        theirs = from_torch(peer(to_torch(X)))
    ours = jax.jit(lambda x: Transposed(4).apply({"params": params}, x, (18, 13)))(X)
    assert relative_difference(ours, theirs[:, :, :13]) < LIMIT


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resizing", ["nearest", "bilinear"])
def test_the_resize_convolution(resizing, size):
    peer = torch.nn.Conv2d(3, 4, 5, padding=2)
    params = {
        "kernel": jnp.asarray(peer.weight.detach().permute(2, 3, 1, 0).numpy()),
        "bias": jnp.asarray(peer.bias.detach().numpy()),
    }
    with torch.no_grad():
        resized = torch.nn.functional.interpolate(to_torch(X), size, mode=resizing)
        theirs = from_torch(peer(resized))
    layer = ResizeConvolution(4, kernel_size=5, resizing=resizing)
    ours = jax.jit(lambda x: layer.apply({"params": {"conv": params}}, x, size))(X)
    assert relative_difference(ours, theirs) < LIMIT
