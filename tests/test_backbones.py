"""Every backbone against its published size, its declared shapes, and its limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, pyramid
from fpn_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fpn_jax.backbones.vgg import VGG
from fpn_jax.errors import InputError

SIZES = [(33, 33), (64, 64), (97, 97), (224, 224), (97, 130)]

VGG_CLASSIFIER = (512 * 7 * 7 * 4096 + 4096) + (4096 * 4096 + 4096) + 4096 * 1000 + 1000
PUBLISHED_PARAMETERS = {
    "resnet18": 11_689_512 - (512 * 1000 + 1000),
    "resnet34": 21_797_672 - (512 * 1000 + 1000),
    "resnet50": 25_557_032 - (2048 * 1000 + 1000),
    "resnet101": 44_549_160 - (2048 * 1000 + 1000),
    "resnet152": 60_192_808 - (2048 * 1000 + 1000),
    "vgg11": 132_863_336 - VGG_CLASSIFIER,
    "vgg13": 133_047_848 - VGG_CLASSIFIER,
    "vgg16": 138_357_544 - VGG_CLASSIFIER,
    "vgg19": 143_667_240 - VGG_CLASSIFIER,
    "vgg11_bn": 132_868_840 - VGG_CLASSIFIER,
    "vgg13_bn": 133_053_736 - VGG_CLASSIFIER,
    "vgg16_bn": 138_365_992 - VGG_CLASSIFIER,
    "vgg19_bn": 143_678_248 - VGG_CLASSIFIER,
}


ALL = (1, 2, 3, 4, 5)


@functools.cache
def abstract_variables(name):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    init = backbones.build(name, levels=ALL).init
    return jax.eval_shape(lambda x: init(jax.random.key(0), x, train=False), images)


def random_variables(backbone):
    """Made by NumPy: compiling the initial values takes longer than the test."""
    rng = np.random.default_rng(0)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    abstract = jax.eval_shape(
        lambda x: backbone.init(jax.random.key(0), x, train=False), images
    )
    return jax.tree.map(
        lambda leaf: np.float32(
            rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
            if leaf.ndim == 4
            else rng.uniform(0.5, 1.5, leaf.shape)
        ),
        abstract,
    )


def test_every_backbone_has_a_published_size():
    assert set(PUBLISHED_PARAMETERS) == set(backbones.names())


@pytest.mark.parametrize("name", backbones.names())
def test_parameter_count_is_the_published_one(name):
    parameters = abstract_variables(name)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    assert count == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", backbones.names())
def test_maps_are_as_declared(name):
    backbone = backbones.build(name, levels=ALL)
    assert tuple(backbone.channels) == ALL
    apply = functools.partial(backbone.apply, train=False)
    # The two deepest differ from resnet50 by repeated blocks alone, and trace slowly.
    for size in SIZES[-1:] if name in ("resnet101", "resnet152") else SIZES:
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        maps = jax.eval_shape(apply, abstract_variables(name), images)
        assert tuple(maps) == ALL
        for level, x in maps.items():
            cells = pyramid.level_size(size, level)
            assert x.shape == (2, *cells, backbone.channels[level])


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_stages_above_the_coarsest_level_are_not_built(name):
    backbone = backbones.build(name, levels=(3, 1))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    maps, variables = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=True), images
    )
    assert list(maps) == list(backbone.channels) == [1, 3]
    top = max(key for key in variables["params"] if "stage" in key)
    assert top == {"resnet18": "stage2", "vgg11": "stage3"}[name]


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(ResNet, block=Bottleneck, stage_sizes=(1, 1, 1, 1)),
        functools.partial(VGG, stage_sizes=(1, 1, 1, 1, 1), batch_norm=True),
    ],
    ids=["resnet", "vgg"],
)
def test_bfloat16_agrees_with_float32(make):
    images = jax.random.normal(jax.random.key(0), (1, 17, 17, 3))
    model = make(width=8, levels=(2, 3))
    variables = random_variables(model)
    expected = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    model = model.clone(dtype=jnp.bfloat16)
    actual = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    for level in (2, 3):
        assert expected[level].dtype == jnp.float32
        assert actual[level].dtype == jnp.bfloat16
        error = np.abs(actual[level].astype(np.float32) - expected[level])
        assert error.max() < 2e-2 * np.abs(expected[level]).max()


@pytest.mark.parametrize("name", ["resnet50", "vgg11_bn"])
def test_parameters_are_float32_in_a_bfloat16_model(name):
    backbone = backbones.build(name, dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda x: backbone.init(jax.random.key(0), x, train=True), images
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_residual_blocks_start_as_their_shortcut():
    scales = {}
    for zero_init in (True, False):
        backbone = ResNet(
            block=BasicBlock,
            stage_sizes=(1, 1, 1, 1),
            width=2,
            levels=(2,),
            zero_init_residual=zero_init,
        )
        images = jnp.ones((1, 8, 8, 3))
        init = jax.jit(functools.partial(backbone.init, train=False))
        block = init(jax.random.key(0), images)["params"]["stage1"]["block0"]
        assert (block["norm1"]["scale"] == 1).all()
        scales[zero_init] = block["norm2"]["scale"]
    assert (scales[True] == 0).all()
    assert (scales[False] == 1).all()


def test_a_bottleneck_strides_in_its_3x3_convolution():
    backbone = backbones.build("resnet50", width=2)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    _, state = jax.eval_shape(
        lambda x: backbone.init_with_output(
            jax.random.key(0),
            x,
            train=False,
            capture_intermediates=True,
            mutable=True,
        ),
        images,
    )
    block = state["intermediates"]["stage2"]["block0"]
    assert block["conv1"]["__call__"][0].shape == (1, 16, 16, 4)
    assert block["conv2"]["__call__"][0].shape == (1, 8, 8, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("resnet19", {}, "backbone 'resnet19' is unknown; did you mean 'resnet18'"),
        ("resnet18", {"widht": 3}, "'widht' is unknown; did you mean 'width'"),
        ("resnet18", {"block": 3}, "'block' is unknown"),
        ("resnet18", {"levels": (2, 6)}, r"levels are \(2, 6\)"),
        ("resnet18", {"levels": ()}, r"levels are \(\)"),
        ("resnet18", {"width": 0}, "width is 0"),
        ("vgg16", {"batch_norm": True}, "'batch_norm' is unknown"),
        ("vgg16", {"levels": (0, 1)}, r"levels are \(0, 1\)"),
        ("vgg16", {"width": 0}, "width is 0"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        backbones.build(name, **arguments)


def test_accepts_names_the_arguments():
    assert backbones.accepts("vgg16") == {"width", "levels", "dtype", "axis_name"}
    assert backbones.accepts("resnet18") == {
        *backbones.accepts("vgg16"),
        "zero_init_residual",
    }
    with pytest.raises(InputError, match="backbone 'vgg' is unknown"):
        backbones.accepts("vgg")
