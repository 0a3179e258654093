"""Every backbone against its published size, its declared shapes, and its limits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, heads, pyramid
from fpn_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fpn_jax.backbones.vgg import VGG
from fpn_jax.errors import InputError
from tests.backbones import test_efficientnet as efficientnet
from tests.backbones import test_mobilenet as mobilenet

SIZE = (97, 130)
MORE_SIZES = [(33, 64), (224, 224)]


def dense(*widths):
    return sum(i * o + o for i, o in itertools.pairwise(widths))


VGG_CLASSIFIER = dense(512 * 7 * 7, 4096, 4096, 1000)
ALEXNET = 61_100_840 - dense(256 * 6 * 6, 4096, 4096, 1000)
# A 1 × 1 and a 5 × 5 convolution with batch normalization, and a dense layer.
INCEPTION_V3_AUXILIARY = (
    (768 * 128 + 2 * 128) + (5 * 5 * 128 * 768 + 2 * 768) + dense(768, 1000)
)
# num_params of torchvision's model pages less the classifier, which is the backbone's
# `paper_head`. Torchvision has no LeNet-5, which is counted by hand from the paper's
# layers, and counts Inception v3 with its auxiliary classifier. The mobile families are
# in their own tests: torchvision's and, for MobileNetV1, timm's.
PUBLISHED_PARAMETERS = {
    # Here the images have three channels instead of one.
    "lenet5": 61_706 + 2 * 5 * 5 * 6 - dense(16 * 5 * 5, 120, 84, 10),
    "alexnet": ALEXNET,
    "alexnet_lrn": ALEXNET,
    "googlenet": 6_624_904 - dense(1024, 1000),
    "inception_v3": 27_161_264 - INCEPTION_V3_AUXILIARY - dense(2048, 1000),
    "resnet18": 11_689_512 - dense(512, 1000),
    "resnet34": 21_797_672 - dense(512, 1000),
    "resnet50": 25_557_032 - dense(2048, 1000),
    "resnet101": 44_549_160 - dense(2048, 1000),
    "resnet152": 60_192_808 - dense(2048, 1000),
    # The contracting half of the network, counted from the paper's layer table.
    "unet": 18_843_200,
    "vgg11": 132_863_336 - VGG_CLASSIFIER,
    "vgg13": 133_047_848 - VGG_CLASSIFIER,
    "vgg16": 138_357_544 - VGG_CLASSIFIER,
    "vgg19": 143_667_240 - VGG_CLASSIFIER,
    "vgg11_bn": 132_868_840 - VGG_CLASSIFIER,
    "vgg13_bn": 133_053_736 - VGG_CLASSIFIER,
    "vgg16_bn": 138_365_992 - VGG_CLASSIFIER,
    "vgg19_bn": 143_678_248 - VGG_CLASSIFIER,
}

ALL = {"lenet5": (1, 2), "alexnet": (2, 3, 4, 5), "alexnet_lrn": (2, 3, 4, 5)}
ALL |= {"unet": (0, 1, 2, 3, 4)}
ALL = {name: ALL.get(name, (1, 2, 3, 4, 5)) for name in PUBLISHED_PARAMETERS}
# One of every kind of block; others differ by their number or width, and trace slowly.
KINDS = ("lenet5", "alexnet_lrn", "googlenet", "inception_v3", "vgg11_bn")
KINDS += ("resnet18", "resnet50")


@functools.cache
def abstract(name):
    """Returns the shapes of the pyramid of images of `SIZE`, and of the variables."""
    images = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    init = backbones.build(name, levels=ALL[name]).init_with_output
    return jax.eval_shape(
        functools.partial(init, train=False), jax.random.key(0), images
    )


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


def compiled(method):
    return jax.jit(functools.partial(method, train=False))


def test_every_backbone_has_a_published_size():
    published = [*PUBLISHED_PARAMETERS, *mobilenet.PUBLISHED, *efficientnet.PUBLISHED]
    assert sorted(published) == sorted(backbones.names())


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    _, variables = abstract(name)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == PUBLISHED_PARAMETERS[name]


def assert_declared(name, maps, size):
    backbone = backbones.build(name, levels=ALL[name])
    assert tuple(maps) == tuple(backbone.channels) == backbone.levels == ALL[name]
    for level, x in maps.items():
        cells = pyramid.level_size(size, level)
        assert x.shape == (2, *cells, backbone.channels[level])


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_maps_are_as_declared(name):
    maps, variables = abstract(name)
    assert_declared(name, maps, SIZE)
    apply = backbones.build(name, levels=ALL[name]).apply
    for size in MORE_SIZES if name in KINDS else ():
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        more = jax.eval_shape(functools.partial(apply, train=False), variables, images)
        assert_declared(name, more, size)


@pytest.mark.parametrize("name", backbones.names())
def test_a_backbone_knows_its_papers_images_and_classifier(name):
    backbone = backbones.build(name)
    assert backbone.native_size >= 2 ** max(backbone.levels)
    head = dict(backbone.paper_head)
    heads.build(head.pop("name"), num_classes=1000, **head)


@pytest.mark.parametrize(
    ("name", "levels", "top"),
    [
        ("lenet5", (1,), "stage1"),
        ("alexnet", (3, 2), "stage1"),
        ("googlenet", (3, 1), "stage2"),
        ("inception_v3", (3, 1), "stage2"),
        ("resnet18", (3, 1), "stage2"),
        ("vgg11", (3, 1), "stage3"),
    ],
)
def test_stages_above_the_coarsest_level_are_not_built(name, levels, top):
    backbone = backbones.build(name, levels=levels)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    maps, variables = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=True), images
    )
    assert tuple(maps) == tuple(backbone.channels) == tuple(sorted(levels))
    assert max(key for key in variables["params"] if "stage" in key) == top


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
    expected = compiled(model.apply)(variables, images)
    model = model.clone(dtype=jnp.bfloat16)
    actual = compiled(model.apply)(variables, images)
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
        init = compiled(backbone.init)
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
        (
            "resnet18",
            {"levels": (2, 3, 2)},
            r"\(2, 3, 2\); give each level of ResNet .* once",
        ),
        ("vgg11", {"levels": (5, 5)}, r"\(5, 5\); give each level of VGG once"),
        ("resnet18", {"width": 0}, "width is 0"),
        ("resnet18", {"padding": "paper"}, "'paper' is unknown; .* symmetric, same"),
        ("resnet50", {"output_stride": 4}, "output_stride 4 is unknown; .* 8, 16, 32"),
        (
            "resnet50",
            {"output_stride": 16, "levels": (2, 5)},
            r"levels are \(2, 5\); .* output_stride 16 has .* \(1, 2, 3, 4\)",
        ),
        ("lenet5", {"levels": (2, 3)}, r"levels are \(2, 3\); LeNet-5"),
        ("lenet5", {"padding": "same"}, "'same' is unknown"),
        ("alexnet", {"levels": (1, 2)}, r"levels are \(1, 2\); AlexNet"),
        ("alexnet", {"padding": "same"}, "'same' is unknown"),
        ("alexnet", {"local_response_norm": True}, "'local_response_norm' is unknown"),
        ("googlenet", {"levels": ()}, r"levels are \(\); GoogLeNet"),
        ("googlenet", {"padding": "same"}, "'same' is unknown"),
        ("inception_v3", {"levels": (6,)}, r"levels are \(6,\); Inception v3"),
        ("inception_v3", {"padding": "same"}, "'same' is unknown"),
        ("vgg16", {"padding": "same"}, "'same' is unknown; .* symmetric, paper"),
        ("vgg16", {"batch_norm": True}, "'batch_norm' is unknown"),
        ("vgg16", {"levels": (0, 1)}, r"levels are \(0, 1\)"),
        ("vgg16", {"width": 0}, "width is 0"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        backbones.build(name, **arguments)


def test_accepts_names_the_arguments():
    common = {"levels", "dtype", "padding"}
    assert backbones.accepts("lenet5") == backbones.accepts("alexnet") == common
    common |= {"axis_name"}
    assert backbones.accepts("googlenet") == backbones.accepts("inception_v3") == common
    common |= {"width"}
    assert backbones.accepts("vgg16") == common
    assert backbones.accepts("resnet18") - common == {
        "zero_init_residual",
        "output_stride",
    }
    with pytest.raises(InputError, match="backbone 'vgg' is unknown"):
        backbones.accepts("vgg")
