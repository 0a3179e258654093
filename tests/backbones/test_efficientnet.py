"""EfficientNets: published sizes, declared shapes, training, limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, pyramid
from fpn_jax.backbones.efficientnet import EfficientNet, Scaling
from fpn_jax.errors import InputError

LEVELS = (1, 2, 3, 4, 5)
SIZES = [(33, 33), (64, 64), (97, 97), (224, 224), (97, 130)]
# torchvision's efficientnet_b0 to b7.
PUBLISHED = {
    "efficientnet_b0": 5_288_548 - (1280 * 1000 + 1000),
    "efficientnet_b1": 7_794_184 - (1280 * 1000 + 1000),
    "efficientnet_b2": 9_109_994 - (1408 * 1000 + 1000),
    "efficientnet_b3": 12_233_232 - (1536 * 1000 + 1000),
    "efficientnet_b4": 19_341_616 - (1792 * 1000 + 1000),
    "efficientnet_b5": 30_389_784 - (2048 * 1000 + 1000),
    "efficientnet_b6": 43_040_704 - (2304 * 1000 + 1000),
    "efficientnet_b7": 66_347_960 - (2560 * 1000 + 1000),
}
"""Parameters less the classifier's."""

# One block a stage, and a quarter of the channels.
TINY = functools.partial(
    EfficientNet, scaling=Scaling(0.25, 0.1, 32, 0.2), levels=(2, 3)
)


@functools.cache
def abstract_variables(backbone):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(
        lambda x: backbone.init(jax.random.key(0), x, train=False), images
    )


def random_variables(backbone):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(
            rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
            if leaf.ndim == 4
            else rng.uniform(0.5, 1.5, leaf.shape)
        ),
        abstract_variables(backbone),
    )


def compiled(function, *arguments):
    return jax.jit(function)(*arguments)


def images(batch, size):
    rng = np.random.default_rng(1)
    return rng.normal(size=(batch, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    backbone = backbones.build(name, levels=LEVELS)
    parameters = abstract_variables(backbone)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    assert count == PUBLISHED[name]


# What the others repeat oftener or wider.
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b2"])
def test_maps_are_as_declared(name):
    backbone = backbones.build(name, levels=LEVELS)
    apply = functools.partial(backbone.apply, train=False)
    for size in SIZES if name == "efficientnet_b0" else SIZES[-1:]:
        x = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        maps = jax.eval_shape(apply, abstract_variables(backbone), x)
        assert tuple(maps) == tuple(backbone.channels) == LEVELS
        for level, x in maps.items():
            cells = pyramid.level_size(size, level)
            assert x.shape == (2, *cells, backbone.channels[level])


def test_the_family_grows():
    family = [backbones.build(name, levels=LEVELS) for name in PUBLISHED]
    sizes = [backbone.native_size for backbone in family]
    assert sizes == [224, 240, 260, 300, 380, 456, 528, 600]
    assert list(family[0].channels.values()) == [16, 24, 40, 112, 1280]
    assert list(family[7].channels.values()) == [32, 48, 80, 224, 2560]
    headless = backbones.build("efficientnet_b7", levels=(5,), head_conv=False)
    assert headless.channels == {5: 640}
    assert family[4].paper_head == {"name": "pool", "pool": "average", "dropout": 0.4}


def test_stages_above_the_coarsest_level_are_not_built():
    for levels, last in (((3, 1), 3), ((4,), 5)):
        backbone = TINY(levels=levels)
        stages = {f"stage{number}" for number in range(1, last + 1)}
        assert set(abstract_variables(backbone)["params"]) == {"stem", *stages}
        assert tuple(backbone.channels) == tuple(sorted(levels))


def test_bfloat16_agrees_with_float32():
    variables, x = random_variables(TINY()), images(1, 17)
    expected, actual = (
        compiled(functools.partial(TINY(dtype=dtype).apply, train=False), variables, x)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    for level in (2, 3):
        assert actual[level].dtype == jnp.bfloat16
        error = np.abs(actual[level].astype(np.float32) - expected[level])
        assert error.max() < 2e-2 * np.abs(expected[level]).max()


def test_every_parameter_has_a_finite_gradient():
    model, x = TINY(), images(2, 24)
    variables = random_variables(model)

    def loss(parameters):
        maps, _ = model.apply(
            variables | {"params": parameters},
            x,
            train=True,
            mutable="batch_stats",
            rngs={"dropout": jax.random.key(0)},
        )
        return sum((maps[level] ** 2).mean() for level in maps)

    for leaf in jax.tree.leaves(compiled(jax.grad(loss), variables["params"])):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


def test_stochastic_depth_grows_linearly():
    rates = backbones.build("efficientnet_b0")._drop_rates([1, 2, 2, 3, 3, 4, 1])
    flat = [rate for stage in rates for rate in stage]
    np.testing.assert_allclose(flat, 0.2 * np.arange(16) / 16)
    assert [len(stage) for stage in rates] == [1, 2, 2, 3, 3, 4, 1]


def test_stochastic_depth_drops_in_training_alone():
    # Deep enough for a block with a shortcut.
    model = TINY(scaling=Scaling(0.25, 1.0, 32, 0.2), levels=(2,), stochastic_depth=0.9)
    variables, x = random_variables(model), images(1, 9)
    x = np.repeat(x, 32, axis=0)

    def train(variables, key):
        return model.apply(
            variables, x, train=True, mutable="batch_stats", rngs={"dropout": key}
        )[0][2]

    y = np.asarray(compiled(train, variables, jax.random.key(0)))
    assert len(np.unique(y[:, 0, 0, 0].round(4))) == 2
    y = compiled(functools.partial(model.apply, train=False), variables, x)[2]
    np.testing.assert_array_equal(y, np.repeat(y[:1], 32, axis=0))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"levels": (0, 2)}, r"levels are \(0, 2\); EfficientNet has"),
        ({"padding": "paper"}, "padding 'paper' is unknown"),
        ({"stochastic_depth": 1.0}, "stochastic_depth is 1.0"),
        ({"scaling": None}, "'scaling' is unknown"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        backbones.build("efficientnet_b0", **arguments)
