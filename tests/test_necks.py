"""The feature pyramid network against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import necks
from fpn_jax.errors import InputError

CHANNELS = {2: 3, 3: 5, 4: 7, 5: 9}
SIZES = {2: (25, 17), 3: (13, 9), 4: (7, 5), 5: (4, 3)}
WIDTH = 4


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return {
        level: rng.normal(size=(2, *SIZES[level], CHANNELS[level])).astype(np.float32)
        for level in CHANNELS
    }


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


def test_bfloat16_is_computed_throughout(maps):
    neck = necks.build("fpn", width=8, dtype=jnp.bfloat16, extra_levels=1, extra="conv")
    result, variables = jax.eval_shape(
        lambda x: neck.init_with_output(jax.random.key(0), x, train=False), maps
    )
    assert {x.dtype for x in jax.tree.leaves(result)} == {np.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_identity_passes_on_the_coarsest_map(maps):
    neck = necks.build("identity")
    result = neck.apply({}, maps, train=True)
    assert list(result) == [5]
    np.testing.assert_array_equal(result[5], maps[5])
    assert neck.output_channels(CHANNELS) == {5: 9}


def test_a_level_that_is_not_given_is_named(maps):
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
        ("fpn", {"extra": "conv"}, "extra is 'conv', but extra_levels is 0"),
        ("fpn", {"upsampling": "cubic"}, "upsampling 'cubic' is unknown"),
        ("fpn", {"norm": "layer"}, "norm 'layer' is unknown"),
        ("fpn", {"norm": "group", "width": 48}, "48 channels"),
        ("identity", {"dtype": jnp.float32}, "'dtype' is unknown"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        necks.build(name, **arguments)


def test_accepts_names_the_arguments():
    assert necks.accepts("identity") == frozenset()
    assert {"width", "levels", "dtype", "axis_name"} <= necks.accepts("fpn")
    with pytest.raises(InputError, match="neck 'pan' is unknown"):
        necks.accepts("pan")
