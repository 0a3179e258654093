"""Compares necks with plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import necks
from fpn_jax.errors import InputError
from fpn_jax.layers.context import ASPP, PPM
from fpn_jax.layers.upsampling import UPSAMPLINGS
from tests.necks.conftest import CHANNELS, SIZES

WIDTH = 4


def conv(x, parameters, stride=1):
    kernel = np.asarray(parameters["conv"]["kernel"], np.float64)
    pad = kernel.shape[0] // 2
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel) + parameters["conv"]["bias"]


def top_down(maps, parameters):
    merged, result = None, {}
    for level in sorted(maps, reverse=True):
        lateral = conv(maps[level], parameters[f"lateral{level}"])
        if merged is not None:
            height, width = lateral.shape[1:3]
            rows = np.arange(height) * merged.shape[1] // height
            columns = np.arange(width) * merged.shape[2] // width
            lateral = lateral + merged[:, rows][:, :, columns]
        merged = lateral
        result[level] = conv(merged, parameters[f"smooth{level}"])
    return result


def run(neck, maps):
    """Returns the maps and the parameters, with biases that are not zero."""
    variables = jax.eval_shape(
        lambda x: neck.init(jax.random.key(0), x, train=False), maps
    )
    rng = np.random.default_rng(1)
    parameters = jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32),
        variables["params"],
    )
    apply = jax.jit(functools.partial(neck.apply, train=False))
    return apply({"params": parameters}, maps), parameters


def run_block(block, parameters, x):
    apply = jax.jit(functools.partial(block.apply, train=False))
    return np.asarray(apply({"params": parameters}, x))


def assert_same(actual, expected):
    assert list(actual) == sorted(expected)
    for level, x in actual.items():
        np.testing.assert_allclose(x, expected[level], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("levels", [None, (3, 4), (2, 5)])
def test_fpn_equals_numpy_at_odd_sizes(maps, levels):
    neck = necks.build("fpn", width=WIDTH, levels=levels)
    actual, parameters = run(neck, maps)
    used = {level: maps[level] for level in levels or maps}
    assert_same(actual, top_down(used, parameters))
    assert {level: x.shape[-1] for level, x in actual.items()} == neck.output_channels(
        CHANNELS
    )


def test_extra_levels_by_max_pooling_take_every_other_cell(maps):
    neck = necks.build("fpn", width=WIDTH, extra_levels=2)
    actual, parameters = run(neck, maps)
    expected = top_down(maps, parameters)
    expected[6] = expected[5][:, ::2, ::2]
    expected[7] = expected[6][:, ::2, ::2]
    assert_same(actual, expected)
    assert neck.output_channels(CHANNELS) == dict.fromkeys(range(2, 8), WIDTH)


def test_extra_levels_from_the_coarsest_map_of_the_backbone(maps):
    neck = necks.build("fpn", width=WIDTH, extra_levels=2, extra="conv_c5")
    actual, parameters = run(neck, maps)
    expected = top_down(maps, parameters)
    expected[6] = conv(maps[5], parameters["extra6"], stride=2)
    expected[7] = conv(np.maximum(expected[6], 0), parameters["extra7"], stride=2)
    assert_same(actual, expected)


def test_ablations_without_the_top_down_path_or_without_lateral_maps(maps):
    actual, parameters = run(
        necks.build("fpn", width=WIDTH, connections="lateral", smooth=False), maps
    )
    assert set(parameters) == {f"lateral{level}" for level in maps}
    expected = {k: conv(x, parameters[f"lateral{k}"]) for k, x in maps.items()}
    assert_same(actual, expected)
    actual, parameters = run(
        necks.build("fpn", width=WIDTH, connections="top_down", smooth=False), maps
    )
    assert set(parameters) == {"lateral5"}
    merged = conv(maps[5], parameters["lateral5"])
    for level in (4, 3, 2):
        height, width = maps[level].shape[1:3]
        rows = np.arange(height) * merged.shape[1] // height
        columns = np.arange(width) * merged.shape[2] // width
        merged = merged[:, rows][:, :, columns]
        np.testing.assert_allclose(actual[level], merged, rtol=1e-5, atol=1e-5)


def test_extra_levels_by_convolution(maps):
    neck = necks.build("fpn", width=WIDTH, extra_levels=2, extra="conv")
    actual, parameters = run(neck, maps)
    expected = top_down(maps, parameters)
    expected[6] = conv(expected[5], parameters["extra6"], stride=2)
    expected[7] = conv(np.maximum(expected[6], 0), parameters["extra7"], stride=2)
    assert_same(actual, expected)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_normalized_convolutions_have_no_bias(norm):
    neck = necks.build("fpn", width=32, norm=norm)
    maps = {
        level: jax.ShapeDtypeStruct((1, *SIZES[level], CHANNELS[level]), jnp.float32)
        for level in CHANNELS
    }
    variables = jax.eval_shape(
        lambda x: neck.init(jax.random.key(0), x, train=True), maps
    )
    assert set(variables["params"]["smooth3"]["conv"]) == {"kernel"}
    assert set(variables["params"]["smooth3"]["norm"]) == {"scale", "bias"}
    assert ("batch_stats" in variables) == (norm == "batch")


def test_all_computations_are_in_bfloat16(maps):
    neck = necks.build(
        "fpn",
        width=8,
        dtype=jnp.bfloat16,
        extra_levels=1,
        extra="conv",
        upsampling="sub_pixel",
    )
    result, variables = jax.eval_shape(
        lambda x: neck.init_with_output(jax.random.key(0), x, train=False), maps
    )
    assert {x.dtype for x in jax.tree.leaves(result)} == {np.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_fpn_uses_the_chosen_upsampling_layer(maps, upsampling):
    neck = necks.build("fpn", width=WIDTH, levels=(4, 5), upsampling=upsampling)
    actual, parameters = run(neck, maps)
    coarse = conv(maps[5], parameters["lateral5"])
    resized = jax.jit(UPSAMPLINGS[upsampling]().apply, static_argnums=2)(
        {"params": parameters.get("upsample4", {})}, jnp.float32(coarse), SIZES[4]
    )
    fine = conv(maps[4], parameters["lateral4"]) + np.asarray(resized)
    expected = {4: conv(fine, parameters["smooth4"])}
    expected[5] = conv(coarse, parameters["smooth5"])
    assert_same(actual, expected)
    learned = {"transposed", "sub_pixel", "resize_convolution"}
    assert ("upsample4" in parameters) == (upsampling in learned)


@pytest.mark.parametrize(
    ("upsampling", "arguments"),
    [
        ("bilinear", {"align_corners": True}),
        ("bicubic", {"coefficient": -0.75}),
        ("transposed", {"kernel_size": 4}),
    ],
)
def test_arguments_of_the_upsampling_are_passed_on(maps, upsampling, arguments):
    neck = necks.build(
        "fpn",
        width=WIDTH,
        levels=(4, 5),
        upsampling={"name": upsampling} | arguments,
    )
    assert hash(neck) == hash(neck.clone())
    actual, parameters = run(neck, maps)
    coarse = conv(maps[5], parameters["lateral5"])
    resized = jax.jit(UPSAMPLINGS[upsampling](**arguments).apply, static_argnums=2)(
        {"params": parameters.get("upsample4", {})}, jnp.float32(coarse), SIZES[4]
    )
    fine = conv(maps[4], parameters["lateral4"]) + np.asarray(resized)
    np.testing.assert_allclose(
        actual[4], conv(fine, parameters["smooth4"]), rtol=1e-5, atol=1e-5
    )


def test_doubling_upsampling_refuses_a_gap_between_levels(maps):
    neck = necks.build("fpn", width=WIDTH, levels=(3, 5), upsampling="sub_pixel")
    with pytest.raises(InputError, match=r"size is \(13, 9\); upsampling a map"):
        jax.eval_shape(lambda x: neck.init(jax.random.key(0), x, train=False), maps)


@pytest.mark.parametrize(
    ("context", "arguments"),
    [
        ("ppm", {}),
        ("ppm", {"bins": (1, 3), "width": 2}),
        ("aspp", {}),
        ("aspp", {"rates": (1, 2), "dropout": 0.0}),
    ],
)
def test_context_is_applied_to_the_coarsest_map_before_its_lateral(
    maps, context, arguments
):
    neck = necks.build(
        "fpn",
        width=WIDTH,
        levels=(4, 5),
        context={"name": context} | arguments,
    )
    actual, parameters = run(neck, maps)
    block = {
        "ppm": functools.partial(PPM, norm="none"),
        "aspp": functools.partial(ASPP, width=WIDTH, norm="none"),
    }[context](**arguments)
    inside = dict(parameters)
    x = run_block(block, inside.pop(context), maps[5])
    assert_same(actual, top_down({4: maps[4], 5: x}, inside))
    assert neck.output_channels(CHANNELS) == {4: WIDTH, 5: WIDTH}


@pytest.mark.parametrize(
    ("name", "block", "arguments"),
    [
        ("ppm", PPM, {"width": 3, "bins": (1, 3)}),
        ("aspp", ASPP, {"width": 3, "rates": (1, 2)}),
    ],
)
def test_context_necks_apply_their_block_to_the_coarsest_map(
    maps, name, block, arguments
):
    neck = necks.build(name, norm="none", **arguments)
    actual, parameters = run(neck, maps)
    assert list(parameters) == [name]
    block = block(norm="none", **arguments)
    assert_same(actual, {5: run_block(block, parameters[name], maps[5])})
    assert neck.output_channels(CHANNELS) == {5: actual[5].shape[-1]}


def test_context_necks_with_batch_norm_update_statistics():
    maps = {5: jax.ShapeDtypeStruct((2, 4, 3, 8), jnp.bfloat16)}
    for name in ("ppm", "aspp"):
        neck = necks.build(name, dtype=jnp.bfloat16)
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        result, variables = jax.eval_shape(
            lambda x, neck=neck, rngs=rngs: neck.init_with_output(rngs, x, train=True),
            maps,
        )
        assert result[5].shape == (2, 4, 3, neck.output_channels({5: 8})[5])
        assert result[5].dtype == jnp.bfloat16
        assert set(variables) == {"params", "batch_stats"}


def test_the_error_names_a_missing_level(maps):
    neck = necks.build("fpn", levels=(2, 6))
    with pytest.raises(InputError, match=r"levels \(2, 6\).*only \(2, 3, 4, 5\)"):
        neck.output_channels(CHANNELS)
    with pytest.raises(ValueError, match=r"levels \(2, 6\).*only \(2, 3, 4, 5\)"):
        neck.init(jax.random.key(0), maps, train=False)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("fnp", {}, "neck 'fnp' is unknown; did you mean 'fpn'"),
        ("fpn", {"withd": 1}, "'withd' is unknown; did you mean 'width'"),
        ("fpn", {"width": 0}, "width is 0"),
        ("fpn", {"levels": ()}, r"levels are \(\)"),
        ("fpn", {"extra_levels": -1}, "extra_levels is -1"),
        ("fpn", {"extra_levels": 1, "extra": "pool"}, "extra 'pool' is unknown"),
        ("fpn", {"connections": "none"}, "connections 'none' is unknown"),
        ("fpn", {"extra": "conv"}, "extra is 'conv', but extra_levels is 0"),
        ("fpn", {"upsampling": "cubic"}, "upsampling 'cubic' is unknown"),
        ("fpn", {"norm": "layer"}, "norm 'layer' is unknown"),
        ("fpn", {"norm": "group", "width": 48}, "but there are 48"),
        ("fpn", {"context": "psp"}, "context 'psp' is unknown"),
        ("fpn", {"context": "ppm", "norm": "layer"}, "norm 'layer' is unknown"),
        (
            "fpn",
            {"upsampling": {"name": "nearest", "align_corners": True}},
            "argument of upsampling 'nearest' 'align_corners' is unknown",
        ),
        (
            "fpn",
            {"upsampling": {"name": "sub_pixel", "features": 3}},
            "argument of upsampling 'sub_pixel' 'features' is unknown",
        ),
        (
            "fpn",
            {"upsampling": {"name": "sub_pixel", "kernel_size": 2}},
            "kernel_size is 2; it must be odd",
        ),
        (
            "fpn",
            {"context": {"name": "none", "bins": (1,)}},
            r"argument of context 'none' 'bins' is unknown; choose one of \(none\)",
        ),
        (
            "fpn",
            {"context": {"name": "aspp", "rate": (1,)}},
            "argument of context 'aspp' 'rate' is unknown; did you mean 'rates'",
        ),
        (
            "fpn",
            {"context": {"name": "aspp", "width": 3}},
            "argument of context 'aspp' 'width' is unknown",
        ),
        (
            "fpn",
            {"context": {"name": "ppm", "bins": ()}},
            r"bins are \(\)",
        ),
        ("identity", {"dtype": jnp.float32}, "'dtype' is unknown"),
        ("identity", {"levels": ()}, r"levels are \(\)"),
        ("ppm", {"bins": (0,)}, "one of the bins is 0"),
        ("aspp", {"rates": ()}, r"rates are \(\)"),
        ("image_pyramid", {"num_scales": 0}, "num_scales is 0"),
    ],
)
def test_invalid_arguments_are_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        necks.build(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("ppm", {}, "3 channels, too few for 4 bins"),
        ("fpn", {"context": "ppm"}, "3 channels, too few for 4 bins"),
        ("image_pyramid", {"level": 4}, r"needs level 4, .* only \(3,\)"),
    ],
)
def test_a_neck_that_does_not_fit_the_backbone_is_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        necks.build(name, **arguments).output_channels({3: 3})


def test_accepts_returns_the_argument_names():
    assert necks.accepts("identity") == {"levels"}
    assert {"width", "levels", "dtype", "axis_name"} <= necks.accepts("fpn")
    with pytest.raises(InputError, match="neck 'pan' is unknown"):
        necks.accepts("pan")
