"""VGG, AlexNet, GoogLeNet and Inception v3 against torchvision's."""

import numpy as np
import pytest

from fpn_jax import backbones
from fpn_jax.ops.normalization import local_response_norm
from fpn_jax.pretrained import alexnet, inception, vgg
from tests.parity.classifiers import assert_names_and_shapes_fit, compare, randomized
from tests.parity.peers import relative_difference, timm, torch, torchvision

models = torchvision.models
PLAIN = {"init_weights": False, "transform_input": False}
GOOGLENET = ("conv1", "conv3", "inception3b", "inception4e", "inception5b")
INCEPTION = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")


def build(name, levels):
    return backbones.build(name, levels=tuple(levels), padding="paper")


def on_meta(make, **arguments):
    """Returns a network without numbers, which take long and are replaced anyway."""
    with torch.device("meta"):
        return make(weights=None, **arguments)


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
def test_vgg_maps_are_torchvisions(name):
    # Its classifier of 100 million parameters is not compared here.
    peer = randomized(on_meta(getattr(models, name)).features)
    pools = [
        key for key, x in peer.named_children() if isinstance(x, torch.nn.MaxPool2d)
    ]
    modules = dict(enumerate(pools, start=1))
    pairs = [
        (ours, theirs.removeprefix("features."))
        for ours, theirs, *_ in vgg.TORCHVISION[name]
    ]
    compare(build(name, modules), peer, pairs, modules)


def test_alexnet_maps_are_torchvisions():
    modules = {2: "features.1", 3: "features.4", 4: "features.11", 5: "features.12"}
    peer = randomized(on_meta(models.alexnet))
    compare(build("alexnet", modules), peer, alexnet.TORCHVISION, modules)


def test_googlenet_maps_are_torchvisions():
    peer = randomized(on_meta(models.googlenet, aux_logits=False, **PLAIN))
    modules = dict(enumerate(GOOGLENET, start=1))
    backbone = build("googlenet", modules)
    compare(backbone, peer, inception.TORCHVISION_V1, modules)


def test_inception_v3_maps_are_torchvisions():
    peer = randomized(on_meta(models.inception_v3, aux_logits=False, **PLAIN))
    modules = dict(enumerate(INCEPTION, start=1))
    backbone = build("inception_v3", modules)
    compare(backbone, peer, inception.TORCHVISION_V3, modules)


@pytest.mark.parametrize("name", vgg.VARIANTS)
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_names_and_shapes_fit_vgg(name, library):
    """The depths that no test computes differ by the number of convolutions alone."""
    if library == "timm":
        with torch.device("meta"):
            peer, maps = timm.create_model(name), vgg.TIMM
    else:
        peer, maps = on_meta(getattr(models, name)), vgg.TORCHVISION
    assert_names_and_shapes_fit(build(name, [5]), peer, maps[name])


@pytest.mark.parametrize(
    ("name", "pairs", "arguments"),
    [
        ("alexnet", alexnet.TORCHVISION, {}),
        ("googlenet", inception.TORCHVISION_V1, PLAIN | {"aux_logits": True}),
        ("inception_v3", inception.TORCHVISION_V3, PLAIN | {"aux_logits": True}),
    ],
)
def test_names_and_shapes_fit_the_peer(name, pairs, arguments):
    peer = on_meta(getattr(models, name), **arguments)
    assert_names_and_shapes_fit(build(name, [5]), peer, pairs, inception.AUXILIARY)


def test_names_fit_timms_inception_v3():
    with torch.device("meta"):
        peer = timm.create_model("inception_v3", aux_logits=True)
    pairs = inception.TORCHVISION_V3
    backbone = build("inception_v3", [5])
    assert_names_and_shapes_fit(backbone, peer, pairs, inception.AUXILIARY)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_local_response_norm_is_torchs(size):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 7)).astype(np.float32) * 10
    peer = torch.nn.LocalResponseNorm(size, alpha=0.3, beta=0.6, k=1.5)
    expected = peer(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    actual = local_response_norm(x, size=size, k=1.5, alpha=0.3, beta=0.6)
    assert relative_difference(actual, expected.numpy()) < 1e-6
