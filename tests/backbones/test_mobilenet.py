"""MobileNets: published sizes, declared shapes, training, limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fpn_jax import backbones, pyramid
from fpn_jax.backbones.mobilenet_v1 import round_channels
from fpn_jax.errors import InputError
from fpn_jax.layers import norm

LEVELS = (1, 2, 3, 4, 5)
SIZES = [(33, 33), (64, 64), (97, 97), (224, 224), (97, 130)]
PUBLISHED = {
    # timm's mobilenetv1_100.
    "mobilenet_v1": 4_231_976 - (1024 * 1000 + 1000),
    # torchvision's mobilenet_v2.
    "mobilenet_v2": 3_504_872 - (1280 * 1000 + 1000),
}
"""Parameters less the classifier's, as the two libraries' model pages count them."""


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


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    parameters = abstract_variables(backbones.build(name))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    assert count == PUBLISHED[name]


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_maps_are_as_declared(name, padding):
    backbone = backbones.build(name, levels=LEVELS, padding=padding)
    apply = functools.partial(backbone.apply, train=False)
    for size in SIZES if padding == "symmetric" else SIZES[-1:]:
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        maps = jax.eval_shape(apply, abstract_variables(backbone), images)
        assert tuple(maps) == tuple(backbone.channels) == LEVELS
        for level, x in maps.items():
            cells = pyramid.level_size(size, level)
            assert x.shape == (2, *cells, backbone.channels[level])


def test_parameter_count_of_a_wider_network_is_the_published_one():
    backbone = backbones.build("mobilenet_v2", width_multiplier=1.4)
    parameters = abstract_variables(backbone)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    # timm's mobilenetv2_140, and torchvision's with width_mult 1.4.
    assert count == 6_108_776 - (1792 * 1000 + 1000)


def test_channels_of_wider_narrower_and_headless_networks():
    build = functools.partial(backbones.build, "mobilenet_v2", levels=LEVELS)
    assert list(build().channels.values()) == [16, 24, 32, 96, 1280]
    assert list(build(head_conv=False).channels.values()) == [16, 24, 32, 96, 320]
    # The last convolution is scaled above 1 only.
    assert list(build(width_multiplier=1.4).channels.values())[2:] == [48, 136, 1792]
    assert list(build(width_multiplier=0.35).channels.values())[2:] == [16, 32, 1280]
    narrow = backbones.build("mobilenet_v1", width_multiplier=0.5, levels=LEVELS)
    assert list(narrow.channels.values()) == [32, 64, 128, 256, 512]


def test_rounding_loses_at_most_a_tenth():
    for channels in np.linspace(1, 200, 57):
        rounded = round_channels(channels)
        assert rounded % 8 == 0
        assert rounded >= 0.9 * channels


@pytest.mark.parametrize(
    ("name", "top"), [("mobilenet_v1", "stage3"), ("mobilenet_v2", "stage3")]
)
def test_stages_above_the_coarsest_level_are_not_built(name, top):
    backbone = backbones.build(name, levels=(3, 1))
    parameters = abstract_variables(backbone)["params"]
    assert list(backbone.channels) == [1, 3]
    assert sorted(parameters) == ["stage1", "stage2", top, "stem"]


def test_the_head_convolution_is_its_own_part():
    names = ["stem", *(f"stage{i}" for i in range(1, 8))]
    for head_conv, extra in ((True, ["top"]), (False, [])):
        backbone = backbones.build("mobilenet_v2", levels=(5,), head_conv=head_conv)
        assert set(abstract_variables(backbone)["params"]) == {*names, *extra}


@pytest.mark.parametrize("name", PUBLISHED)
def test_bfloat16_agrees_with_float32(name):
    model = backbones.build(name, width_multiplier=0.25, levels=(1, 2))
    variables = random_variables(model)
    x = np.random.default_rng(1).normal(size=(1, 17, 17, 3)).astype(np.float32)
    expected, actual = (
        compiled(functools.partial(m.apply, train=False), variables, x)
        for m in (model, model.clone(dtype=jnp.bfloat16))
    )
    for level in (1, 2):
        assert actual[level].dtype == jnp.bfloat16
        error = np.abs(actual[level].astype(np.float32) - expected[level])
        assert error.max() < 2e-2 * np.abs(expected[level]).max()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_has_a_finite_gradient(name):
    model = backbones.build(name, width_multiplier=0.25, levels=(2, 3))
    variables = random_variables(model)
    x = np.random.default_rng(1).normal(size=(2, 24, 24, 3)).astype(np.float32)

    def loss(parameters):
        maps, _ = model.apply(
            variables | {"params": parameters}, x, train=True, mutable="batch_stats"
        )
        return sum((maps[level] ** 2).mean() for level in maps)

    for leaf in jax.tree.leaves(compiled(jax.grad(loss), variables["params"])):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


@pytest.mark.parametrize("name", [*PUBLISHED, "efficientnet_b0"])
def test_epsilon_reaches_every_norm(name):
    model = backbones.build(name, epsilon=0.25)
    found = []

    def note(call, arguments, keywords, context):
        if (
            isinstance(context.module, norm.BatchNorm)
            and context.method_name == "__call__"
        ):
            found.append(context.module.epsilon)
        return call(*arguments, **keywords)

    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    with nn.intercept_methods(note):
        variables = jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=False), images
        )
    norms = len(jax.tree.leaves(variables["batch_stats"])) // 2
    assert found == [0.25] * norms
    assert norms > 20


def test_epsilon_is_added_to_the_variance():
    model = backbones.build("mobilenet_v2", width_multiplier=0.25, levels=(1, 2))
    variables = random_variables(model)
    more = jax.tree.map_with_path(
        lambda path, leaf: leaf + 0.5 if path[-1].key == "var" else leaf, variables
    )
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    expected = compiled(functools.partial(model.apply, train=False), more, x)
    model = model.clone(epsilon=model.epsilon + 0.5)
    actual = compiled(functools.partial(model.apply, train=False), variables, x)
    for level in (1, 2):
        np.testing.assert_allclose(actual[level], expected[level], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("mobilenet_v2", {"levels": (2, 6)}, r"levels are \(2, 6\); MobileNetV2 has"),
        (
            "mobilenet_v1",
            {"levels": (2, 2)},
            r"\(2, 2\); give each level of MobileNetV1 once",
        ),
        ("mobilenet_v1", {"levels": ()}, r"levels are \(\); MobileNetV1 has"),
        ("mobilenet_v2", {"padding": "paper"}, "padding 'paper' is unknown"),
        ("mobilenet_v1", {"padding": "valid"}, "padding 'valid' is unknown"),
        ("mobilenet_v2", {"width_multiplier": 0}, "width_multiplier is 0"),
        ("mobilenet_v1", {"head_conv": True}, "'head_conv' is unknown"),
        ("mobilenet_v3", {}, "backbone 'mobilenet_v3' is unknown; did you mean"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        backbones.build(name, **arguments)


def test_says_what_the_paper_read_and_how():
    for name in PUBLISHED:
        backbone = backbones.build(name)
        assert backbone.native_size == 224
        assert backbone.paper_head["name"] == "pool"
        assert backbone.paper_head["pool"] == "average"
