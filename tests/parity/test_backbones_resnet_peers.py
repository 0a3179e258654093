"""ResNets against torchvision's, and timm's where torchvision has none."""

import jax
import numpy as np
import pytest

from fpn_jax import backbones
from fpn_jax.pretrained import convert
from fpn_jax.pretrained.resnet import TORCHVISION
from tests.parity.classifiers import (
    assert_names_and_shapes_fit,
    compare,
    maps_of,
    variables_of,
)
from tests.parity.peers import (
    from_torch,
    randomize,
    relative_difference,
    timm,
    to_torch,
    torch,
    torchvision,
)

MODULES = {1: "relu", 2: "layer1", 3: "layer2", 4: "layer3", 5: "layer4"}
DILATED = {
    8: {1: "relu", 2: "layer1", 3: "layer4"},
    16: {1: "relu", 2: "layer1", 3: "layer2", 4: "layer4"},
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_maps_are_torchvisions(name):
    peer = randomize(getattr(torchvision.models, name)(weights=None).eval())
    backbone = backbones.build(name, levels=tuple(MODULES))
    compare(backbone, peer, TORCHVISION, MODULES)


@pytest.mark.parametrize("output_stride", DILATED)
def test_dilated_maps_are_torchvisions(output_stride):
    modules = DILATED[output_stride]
    peer = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, output_stride == 8, True]
    )
    backbone = backbones.build(
        "resnet50", levels=tuple(modules), output_stride=output_stride
    )
    compare(backbone, randomize(peer.eval()), TORCHVISION, modules)


def test_dilated_maps_of_basic_blocks_are_timms():
    peer = timm.create_model("resnet18", output_stride=8).eval()
    modules = {1: "act1", 2: "layer1", 3: "layer4"}
    backbone = backbones.build("resnet18", levels=(1, 2, 3), output_stride=8)
    compare(backbone, randomize(peer), TORCHVISION, modules, sizes=(97,))


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_names_and_shapes_fit_the_peers(depth, library):
    """The depths that no test computes differ by the number of blocks alone."""
    name = f"resnet{depth}"
    with torch.device("meta"):
        if library == "timm":
            peer = timm.create_model(name)
        else:
            peer = getattr(torchvision.models, name)(weights=None)
    assert_names_and_shapes_fit(backbones.build(name, levels=(5,)), peer, TORCHVISION)


def test_training_is_torchvisions():
    """Maps from batch statistics, and the gradient of every parameter."""
    peer = randomize(torchvision.models.resnet18(weights=None).train())
    backbone = backbones.build("resnet18", levels=tuple(MODULES))
    variables = variables_of(backbone, peer, TORCHVISION)
    # Rounding of both would add up: a sum that ends on a ReLU's other side is seen.
    peer = peer.double()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    theirs = maps_of(peer, MODULES, to_torch(images).double())
    weights = {
        level: rng.normal(size=from_torch(x).shape).astype(np.float32)
        for level, x in theirs.items()
    }
    sum((to_torch(weights[key]) * x**2).mean() for key, x in theirs.items()).backward()

    def loss(parameters, variables, images):
        maps, _ = backbone.apply(
            {**variables, "params": parameters},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return sum((weights[level] * x**2).mean() for level, x in maps.items()), maps

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    gradients, maps = gradient(variables["params"], variables, images)
    for level, x in maps.items():
        assert relative_difference(x, from_torch(theirs[level])) < 1e-4, level
    gradients = convert.to_state_dict({"params": {"backbone": gradients}}, TORCHVISION)
    expected = {
        key: x.grad.numpy() for key, x in peer.named_parameters() if x.grad is not None
    }
    assert gradients.keys() == expected.keys()
    for key, x in gradients.items():
        assert np.abs(expected[key]).max() > 0, key
        assert relative_difference(x, expected[key]) < 1e-4, key
