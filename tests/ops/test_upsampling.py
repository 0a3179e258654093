"""Upsampling against its definitions, cell by cell, and in its limits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fpn_jax.errors import InputError
from fpn_jax.ops.upsampling import (
    RESIZINGS,
    depth_to_space,
    resize_bicubic,
    resize_bilinear,
    resize_lanczos,
    resize_nearest,
    space_to_depth,
    transposed_conv,
)


def naive(x, size):
    rows = [i * x.shape[1] // size[0] for i in range(size[0])]
    columns = [j * x.shape[2] // size[1] for j in range(size[1])]
    return x[:, rows][:, :, columns]


@pytest.mark.parametrize(
    "size", [(8, 6), (7, 5), (4, 3), (16, 12), (11, 8), (2, 2), (5, 10)]
)
def test_equals_its_definition(size):
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)
    y = resize_nearest(jnp.asarray(x), size)
    np.testing.assert_array_equal(y, naive(x, size))
    check_grads(jax.jit(lambda x: resize_nearest(x, size)), (x,), 1, ["rev"])


@pytest.mark.parametrize("length", [1, 2, 3, 13, 28, 39])
def test_one_level_finer_every_cell_copies_the_one_that_covers_it(length):
    coarse = jnp.arange(-(-length // 2), dtype=jnp.float32).reshape(1, -1, 1, 1)
    fine = resize_nearest(coarse, (length, 1))[0, :, 0, 0]
    np.testing.assert_array_equal(fine, np.arange(length) // 2)


def test_even_doubling_equals_the_library():
    x = jax.random.normal(jax.random.key(0), (1, 5, 7, 2), jnp.bfloat16)
    y = resize_nearest(x, (10, 14))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jax.image.resize(x, y.shape, "nearest"))


def sinc(t):
    return 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)


def triangle(t):
    return max(1 - abs(t), 0)


def cubic(t, a=-0.5):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0


def lanczos(t):
    return sinc(t) * sinc(t / 3) if abs(t) < 3 else 0


def resample(line, m, kernel, antialias=False, align_corners=False):
    """Returns a line at `m` cells, one weight after the other."""
    n = len(line)
    stretch = max(n / m, 1) if antialias else 1
    result = []
    for i in range(m):
        centre = (i + 0.5) * n / m - 0.5
        if align_corners:
            centre = i * (n - 1) / (m - 1) if m > 1 else 0
        total = weight = 0.0
        for cell in range(-4 * n - 9, 5 * n + 9):
            w = kernel((cell - centre) / stretch)
            if antialias and not 0 <= cell < n:
                continue
            total += w * line[min(max(cell, 0), n - 1)]
            weight += w
        result.append(total / weight)
    return np.array(result)


def resample_map(x, size, *args, **options):
    for axis, m in zip((1, 2), size, strict=True):
        x = np.apply_along_axis(resample, axis, x, m, *args, **options)
    return x


CASES = [
    (resize_bilinear, triangle, {}),
    (resize_bilinear, triangle, {"antialias": True}),
    (resize_bilinear, triangle, {"align_corners": True}),
    (resize_bicubic, cubic, {}),
    (resize_bicubic, cubic, {"antialias": True}),
    (resize_bicubic, cubic, {"align_corners": True}),
    (resize_lanczos, lanczos, {"antialias": False}),
    (resize_lanczos, lanczos, {"antialias": True}),
]
IDS = [f"{f.__name__}-{'-'.join(o) or 'plain'}" for f, _, o in CASES]


@pytest.mark.parametrize(("resize", "kernel", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("size", [(11, 3), (1, 14), (15, 14)])
def test_a_resize_equals_its_definition(resize, kernel, options, size):
    x = np.random.default_rng(1).normal(size=(2, 5, 7, 2))
    y = jax.jit(lambda x: resize(x, size, **options))(np.float32(x))
    expected = resample_map(x, size, kernel, **{"antialias": False} | options)
    np.testing.assert_allclose(y, expected, atol=2e-6)


def test_the_cubic_coefficient_is_honoured():
    x = np.random.default_rng(2).normal(size=(1, 5, 4, 1))
    y = resize_bicubic(jnp.asarray(x, jnp.float32), (8, 7), coefficient=-0.75)
    expected = resample_map(x, (8, 7), lambda t: cubic(t, -0.75))
    np.testing.assert_allclose(y, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_weights_are_applied_in_float32_and_the_type_is_kept(name):
    x = jax.random.normal(jax.random.key(0), (1, 5, 7, 3), jnp.bfloat16)
    y = RESIZINGS[name](x, (9, 4))
    assert y.dtype == jnp.bfloat16
    exact = RESIZINGS[name](x.astype(jnp.float32), (9, 4))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(("resize", "kernel", "options"), CASES, ids=IDS)
def test_limits_of_a_resize(resize, kernel, options):
    sizes = [(13, 11), (1, 3)]

    @jax.jit
    def limits(x):
        ones = [resize(jnp.ones_like(x), size, **options) for size in sizes]
        return resize(x, (6, 5), **options), ones, resize(x[:, :1, :1], (4, 2))

    x = np.random.default_rng(0).normal(size=(1, 6, 5, 2)).astype(np.float32)
    same, ones, cell = limits(x)
    np.testing.assert_array_equal(same, x)
    for y, size in zip(ones, sizes, strict=True):
        np.testing.assert_allclose(y, np.ones((1, *size, 2)), rtol=1e-6)
    copies = np.broadcast_to(x[:, :1, :1], (1, 4, 2, 2))
    np.testing.assert_allclose(cell, copies, rtol=1e-6)


@pytest.mark.parametrize("resize", [resize_bilinear, resize_bicubic])
def test_a_ramp_stays_a_ramp_away_from_borders(resize):
    ramp = jnp.broadcast_to(jnp.arange(9.0)[:, None, None], (1, 9, 4, 1))
    y = resize(ramp, (21, 4))[0, :, 0, 0]
    centres = (np.arange(21) + 0.5) * 9 / 21 - 0.5
    inner = (centres >= 1) & (centres <= 7)
    np.testing.assert_allclose(y[inner], centres[inner], atol=1e-5)
    aligned = resize(ramp, (17, 4), align_corners=True)[0, :, 0, 0]
    np.testing.assert_allclose(aligned[2:-2], np.arange(17)[2:-2] / 2, atol=1e-5)
    np.testing.assert_array_equal(aligned[jnp.array([0, -1])], [0, 8])


@pytest.mark.parametrize("size", [(5, 3), (6, 8)])
@pytest.mark.parametrize(("resize", "kernel", "options"), CASES[1::2], ids=IDS[1::2])
def test_gradient_of_a_resize(resize, kernel, options, size):
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 1))
    fixed = jax.jit(lambda x: resize(x, size, **options))
    check_grads(fixed, (x,), 1, ["rev"], eps=1e-2)


def naive_transposed(x, kernel, s, p, o, d):
    (b, h, w, _), (kh, kw, _, c) = x.shape, kernel.shape
    full = np.zeros((b, (h - 1) * s + d * (kh - 1) + 1 + o, 0, c))
    full = np.zeros((*full.shape[:2], (w - 1) * s + d * (kw - 1) + 1 + o, c))
    for i, j, a, e in np.ndindex(h, w, kh, kw):
        full[:, s * i + d * a, s * j + d * e] += x[:, i, j] @ kernel[a, e]
    return full[:, p : full.shape[1] - p, p : full.shape[2] - p]


TRANSPOSED = [
    *((2, (1, 0, 0, 1)), (3, (2, 1, 1, 1)), (4, (2, 1, 0, 1))),
    *((3, (3, 0, 2, 1)), (3, (2, 2, 1, 2)), (2, (1, 2, 0, 1))),
]


@pytest.mark.parametrize(("k", "numbers"), TRANSPOSED)
def test_transposed_conv_equals_its_definition(k, numbers):
    generator = np.random.default_rng(0)
    x, kernel = generator.normal(size=(2, 4, 5, 3)), generator.normal(size=(k, k, 3, 2))
    upsample = jax.jit(lambda x, kernel: transposed_conv(x, kernel, *numbers))
    y = upsample(np.float32(x), np.float32(kernel))
    np.testing.assert_allclose(y, naive_transposed(x, kernel, *numbers), atol=1e-5)


def test_gradient_and_type_of_transposed_conv():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 1))
    upsample = jax.jit(lambda x, kernel: transposed_conv(x, kernel, 2, 1, 1))
    check_grads(upsample, (x, kernel), 1, ["rev"], eps=1e-2)
    half = jnp.bfloat16
    assert transposed_conv(x.astype(half), kernel.astype(half), 2).dtype == half


def test_transposed_conv_is_the_gradient_of_a_convolution():
    x, g = (
        jax.random.normal(jax.random.key(i), (1, n, n, 2)) for i, n in [(0, 8), (1, 4)]
    )
    kernel = jax.random.normal(jax.random.key(2), (3, 3, 2, 2))

    def convolution(x):
        return jax.lax.conv_general_dilated(
            *(x, kernel, (2, 2), ((1, 1), (1, 1))),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    (expected,) = jax.jit(lambda g: jax.vjp(convolution, x)[1](g))(g)
    y = transposed_conv(g, kernel.swapaxes(2, 3), 2, padding=1, output_padding=1)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_depth_to_space_equals_its_definition_and_inverts(factor):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5 * factor**2))
    x = x.astype(np.float32)
    y = np.asarray(depth_to_space(jnp.asarray(x), factor))
    for row, column, c, i, j in np.ndindex(3, 4, 5, factor, factor):
        cell = y[:, row * factor + i, column * factor + j, c]
        np.testing.assert_array_equal(
            cell, x[:, row, column, (c * factor + i) * factor + j]
        )
    np.testing.assert_array_equal(space_to_depth(jnp.asarray(y), factor), x)


@pytest.mark.parametrize("name", RESIZINGS)
@pytest.mark.parametrize("size", [(0, 4), (4, -1), (2.5, 2)])
def test_a_size_below_one_is_refused(name, size):
    with pytest.raises(InputError, match=r"size is .* at least 1"):
        RESIZINGS[name](jnp.ones((1, 2, 2, 1)), size)


def test_what_does_not_fit_is_refused():
    x = jnp.ones((1, 3, 3, 6))
    with pytest.raises(InputError, match="antialias and align_corners are both on"):
        resize_bilinear(x, (4, 4), antialias=True, align_corners=True)
    with pytest.raises(ValueError, match="maps are int32"):
        resize_bicubic(x.astype(jnp.int32), (4, 4))
    with pytest.raises(ValueError, match=r"6 channels.*multiple of 4"):
        depth_to_space(x, 2)
    with pytest.raises(ValueError, match=r"3 × 3 cells.*multiples of 2"):
        space_to_depth(x, 2)
    with pytest.raises(InputError, match="factor is 0"):
        depth_to_space(x, 0)
    kernel = jnp.ones((3, 3, 6, 1))
    with pytest.raises(InputError, match="output_padding is 2"):
        transposed_conv(x, kernel, 2, output_padding=2)
    with pytest.raises(InputError, match="stride is 0"):
        transposed_conv(x, kernel, 0)
    with pytest.raises(InputError, match="padding is 4, which removes every cell"):
        transposed_conv(x, kernel, 2, padding=4)
