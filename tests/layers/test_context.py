"""Context blocks against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.layers.context import ASPP, PPM

BLOCKS = {
    "ppm": PPM(bins=(1, 2, 3)),
    "aspp": ASPP(width=4, rates=(1, 3), dropout=0.0),
}


def a_map(size=(5, 4), channels=6, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(2, *size, channels)).astype(dtype)


def random_variables(block, x):
    rng = np.random.default_rng(1)
    abstract = jax.eval_shape(
        lambda x: block.init(jax.random.key(0), x, train=False), x
    )
    return jax.tree.map(
        lambda leaf: np.float32(
            rng.normal(0, 0.3, leaf.shape)
            if leaf.ndim > 1
            else rng.uniform(0.5, 1.5, leaf.shape)
        ),
        abstract,
    )


def apply(block, variables, x):
    return jax.jit(functools.partial(block.apply, train=False))(variables, x)


def branch(x, variables, name):
    """Returns a 1 × 1 convolution, its normalization and ReLU."""
    parameters = variables["params"][name]
    y = x @ parameters["conv"]["kernel"][0, 0]
    if "norm" in parameters:
        statistics = variables["batch_stats"][name]["norm"]
        y = (y - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
        y = y * parameters["norm"]["scale"] + parameters["norm"]["bias"]
    else:
        y = y + parameters["conv"]["bias"]
    return np.maximum(y, 0)


def test_ppm_of_one_bin_and_of_every_cell_equals_numpy():
    # Bins as many as the cells of a square map: the map, and no resizing.
    x, block = a_map((4, 4)), PPM(bins=(4, 1), width=2)
    variables = random_variables(block, x)
    assert set(variables["params"]["bin1"]) == {"conv"}
    assert set(variables["params"]["bin4"]) == {"conv", "norm"}
    mean = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    expected = [branch(x, variables, "bin4"), branch(mean, variables, "bin1"), x]
    np.testing.assert_allclose(
        apply(block, variables, x), np.concatenate(expected, -1), rtol=1e-5, atol=1e-5
    )


def test_aspp_beyond_the_map_is_its_centre_taps():
    x, block = a_map((5, 4)), ASPP(width=3, rates=(5, 9), dropout=0.0)
    variables = random_variables(block, x)
    centres = jax.tree.map(lambda leaf: leaf, variables)
    for name in ("dilated1", "dilated2"):
        kernel = variables["params"][name]["conv"]["kernel"]
        assert kernel.shape == (3, 3, 6, 3)
        centres["params"][name]["conv"] = {"kernel": kernel[1:2, 1:2]}
    mean = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    names = ("point", "dilated1", "dilated2")
    maps = [branch(x, centres, name) for name in names] + [
        branch(mean, variables, "image")
    ]
    expected = branch(np.concatenate(maps, -1), variables, "project")
    np.testing.assert_allclose(
        apply(block, variables, x), expected, rtol=1e-4, atol=1e-5
    )


def test_a_dilation_below_the_map_reaches_other_cells():
    x, block = a_map((5, 4)), ASPP(width=3, rates=(2,), dropout=0.0)
    variables = random_variables(block, x)
    # A copy: arrays of NumPy may be read while they are changed.
    without = jax.tree.map(np.copy, variables)
    kernel = without["params"]["dilated1"]["conv"]["kernel"]
    kernel[0, 0] = kernel[2, 2] = 0
    difference = apply(block, without, x) - apply(block, variables, x)
    assert np.abs(difference).max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (7, 4), (13, 20)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_shapes_at_odd_sizes(size, dtype):
    x = jax.ShapeDtypeStruct((2, *size, 9), dtype)
    for block, channels in (
        (PPM(dtype=dtype), 9 + 4 * 2),
        (PPM(bins=(1, 5), width=7, dtype=dtype), 9 + 2 * 7),
        (ASPP(dtype=dtype), 256),
    ):
        y, variables = jax.eval_shape(
            lambda x, block=block: block.init_with_output(
                jax.random.key(0), x, train=False
            ),
            x,
        )
        assert y.shape == (2, *size, channels)
        assert y.dtype == dtype
        assert {v.dtype for v in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_agrees_with_float32(name):
    x, block = a_map(), BLOCKS[name]
    variables = random_variables(block, x)
    expected = apply(block, variables, x)
    actual = apply(block.clone(dtype=jnp.bfloat16), variables, jnp.bfloat16(x))
    assert actual.dtype == jnp.bfloat16
    assert np.abs(actual - expected).max() < 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_are_finite_and_reach_every_parameter(name):
    x, block = a_map(), BLOCKS[name]
    variables = random_variables(block, x)

    def loss(parameters):
        y, updated = block.apply(
            variables | {"params": parameters}, x, train=True, mutable=["batch_stats"]
        )
        return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum(), updated

    gradient, updated = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.abs(leaf).max() > 0, path
    changed = jax.tree.map(
        lambda a, b: np.abs(a - b).max() > 0,
        updated["batch_stats"],
        variables["batch_stats"],
    )
    assert all(jax.tree.leaves(changed))


def test_one_image_in_training_is_refused_because_of_the_image_branch():
    """Its batch normalization would see one value for each channel."""
    x, block = a_map()[:1], ASPP(width=3, rates=(1,), dropout=0.0)
    variables = random_variables(block, x)
    with pytest.raises(InputError, match="image/norm has a single value"):
        block.apply(variables, x, train=True, mutable=["batch_stats"])
    y = block.apply(variables, x, train=False)
    assert jnp.isfinite(y).all()


def test_dropout_is_random_in_training_alone():
    x, block = a_map(), ASPP(width=8, rates=(1,), norm="none")
    variables = random_variables(block, x)

    @functools.partial(jax.jit, static_argnums=1)
    def run(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return block.apply(variables, x, train=train, rngs=rngs)

    assert (run(0, True) == run(0, True)).all()
    assert (run(0, True) != run(1, True)).any()
    assert (run(0, False) == run(1, False)).all()
    dropped = np.mean((run(0, True) == 0) & (run(0, False) > 0))
    kept = np.mean(run(0, False) > 0)
    assert 0.3 < dropped / kept < 0.7


@pytest.mark.parametrize("norm", ["group", "none"])
def test_other_normalizations(norm):
    x = jax.ShapeDtypeStruct((1, 4, 4, 64), jnp.float32)
    for block in (PPM(bins=(1, 2), norm=norm), ASPP(width=32, norm=norm)):
        variables = jax.eval_shape(
            lambda x, block=block: block.init(jax.random.key(0), x, train=True), x
        )
        assert "batch_stats" not in variables
        for part in variables["params"].values():
            assert set(part) == ({"conv", "norm"} if norm == "group" else {"conv"})


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: PPM(bins=()), r"bins are \(\)"),
        (lambda: PPM(bins=(1, 0)), "one of the bins is 0"),
        (lambda: PPM(bins=(2, 2)), "give each number once"),
        (lambda: PPM(width=0), "width is 0"),
        (lambda: PPM(width=8, norm="layer"), "norm 'layer' is unknown"),
        (lambda: PPM(norm="layer").output_channels(8), "norm 'layer' is unknown"),
        (
            lambda: PPM(norm="group").output_channels(8),
            "32 channels, but there are 2",
        ),
        (lambda: PPM().output_channels(3), "3 channels, too few for 4 bins"),
        (lambda: ASPP(rates=()), r"rates are \(\)"),
        (lambda: ASPP(rates=(6, 0)), "one of the rates is 0"),
        (lambda: ASPP(width=0), "width is 0"),
        (
            lambda: ASPP(width=8, norm="group"),
            "32 channels, but there are 8",
        ),
        (lambda: ASPP(dropout=1.0), r"dropout is 1\.0"),
    ],
)
def test_what_cannot_be_built_is_refused(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()
