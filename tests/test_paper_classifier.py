"""The classifiers of the papers that introduced the backbones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones
from fpn_jax.errors import InputError
from fpn_jax.model import paper_classifier

PUBLISHED = {
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "alexnet_lrn": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    # The counts of these two exclude the auxiliary classifiers.
    "googlenet": 6_624_904,
    "inception_v3": 23_834_568,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    # U-Net has no classifier; half of the network and a layer of 1,000 classes.
    "unet": 18_843_200 + 1025 * 1000,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
}
"""Number of parameters of each classifier in torchvision or timm."""


def shapes(model, channels=3, dtype=jnp.float32):
    size = model.backbone.native_size
    images = jax.ShapeDtypeStruct((1, size, size, channels), dtype)
    return jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), images
    )


@pytest.mark.parametrize("name", backbones.names())
def test_classifiers_have_the_published_number_of_parameters(name):
    channels, classes = (1, 10) if name == "lenet5" else (3, 1000)
    model = paper_classifier(name, classes)
    predictions, variables = shapes(model, channels)
    assert predictions["logits"].shape == (1, classes)
    assert set(variables["params"]) == {"backbone", "head"}
    total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert total == PUBLISHED[name]


def coarsest_map(model):
    size = model.backbone.native_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    maps, _ = jax.eval_shape(
        lambda x: model.backbone.init_with_output(jax.random.key(0), x, train=False),
        images,
    )
    return maps[max(maps)].shape[1:3]


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg11"])
def test_the_coarsest_map_has_the_size_that_the_papers_layers_read(name):
    model = paper_classifier(name)
    assert coarsest_map(model) == (model.head.grid, model.head.grid)


def test_the_default_padding_is_that_of_the_paper():
    assert coarsest_map(paper_classifier("inception_v3")) == (8, 8)
    paddings = {name: paper_classifier(name).backbone.padding for name in PUBLISHED}
    paper = {name for name, padding in paddings.items() if padding == "paper"}
    vgg = {name for name in PUBLISHED if name.startswith("vgg")}
    assert (
        paper == {"lenet5", "alexnet", "alexnet_lrn", "googlenet", "inception_v3"} | vgg
    )
    model = paper_classifier("alexnet", padding="symmetric")
    assert coarsest_map(model) == (7, 7)


def lenet():
    model = paper_classifier("lenet5", 10)
    _, abstract = shapes(model, channels=1)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), abstract
    )
    size = model.backbone.native_size
    return model, variables, rng.normal(size=(2, size, size, 1)).astype(np.float32)


def test_the_head_reads_the_backbones_coarsest_map():
    model, variables, images = lenet()

    @jax.jit
    def by_parts(parameters, images):
        maps = model.backbone.apply(
            {"params": parameters["backbone"]}, images, train=False
        )
        coarsest = {max(maps): maps[max(maps)]}
        return model.head.apply({"params": parameters["head"]}, coarsest, train=False)

    logits = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    expected = by_parts(variables["params"], images)
    np.testing.assert_allclose(logits["logits"], expected["logits"], atol=1e-5)


def test_bfloat16_agrees_with_float32():
    model, variables, images = lenet()
    model16 = paper_classifier("lenet5", 10, dtype=jnp.bfloat16)
    assert model16.head.dtype == jnp.bfloat16
    expected = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    actual = jax.jit(functools.partial(model16.apply, train=False))(variables, images)
    assert actual["logits"].dtype == jnp.float32
    difference = np.abs(actual["logits"] - expected["logits"]).max()
    assert difference < 2e-2 * np.abs(expected["logits"]).max()


def test_invalid_arguments_are_refused():
    with pytest.raises(InputError, match="backbone 'resnet19' is unknown"):
        paper_classifier("resnet19")
    with pytest.raises(InputError, match="argument of backbone 'resnet18' 'depth'"):
        paper_classifier("resnet18", depth=3)
    with pytest.raises(InputError, match="num_classes is 1"):
        paper_classifier("resnet18", 1)
    model = paper_classifier("resnet18")
    with pytest.raises(InputError, match="31 × 40 is too small for level 5"):
        model.init(jax.random.key(0), jnp.zeros((1, 31, 40, 3)), train=False)
    model = paper_classifier("alexnet")
    with pytest.raises(InputError, match="62 × 80 is too small for level 5 of AlexNet"):
        model.init(jax.random.key(0), jnp.zeros((1, 62, 80, 3)), train=False)
