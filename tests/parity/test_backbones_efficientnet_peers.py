"""EfficientNets against torchvision's and timm's.

B0 and B2, which is wider and deeper, are compared whole, the others up to level 3: they
differ by factors only, and compiling them takes minutes. B5 and above have another
epsilon.
"""

import pytest

from fpn_jax import backbones
from fpn_jax.pretrained import convert, efficientnet
from tests.parity.classifiers import compare, randomized, shapes_of
from tests.parity.peers import randomize, timm, torch, torchvision

LEVELS = (1, 2, 3, 4, 5)
TORCHVISION_MODULES = {
    level: f"features.{i}" for level, i in zip(LEVELS, (1, 2, 3, 5, 8), strict=True)
}
TIMM_MODULES = {1: "blocks.0", 2: "blocks.1", 3: "blocks.2", 4: "blocks.4", 5: "bn2"}


@pytest.mark.parametrize(
    ("name", "sizes"), [("efficientnet_b0", (224, 225, 97)), ("efficientnet_b2", (97,))]
)
def test_equals_torchvision(name, sizes):
    peer = randomize(getattr(torchvision.models, name)(weights=None)).eval()
    backbone = backbones.build(name, levels=LEVELS)
    pairs = efficientnet.TORCHVISION
    compare(backbone, peer, pairs, TORCHVISION_MODULES, sizes)


@pytest.mark.parametrize("index", [1, 3, 4, 5, 6, 7])
def test_fine_maps_equal_torchvisions(index):
    name, modules = f"efficientnet_b{index}", {1: "1", 2: "2", 3: "3"}
    with torch.device("meta"):
        peer = getattr(torchvision.models, name)(weights=None).features[:4]
    pairs = [
        (ours, theirs.removeprefix("features."))
        for ours, theirs in efficientnet.TORCHVISION
    ]
    backbone = backbones.build(name, levels=tuple(modules))
    compare(backbone, randomized(peer), pairs, modules, sizes=(33,))


@pytest.mark.parametrize(
    ("name", "padding", "epsilon", "sizes"),
    [
        ("efficientnet_b0", "symmetric", None, (97,)),
        ("tf_efficientnet_b0", "same", 1e-3, (97, 98)),
    ],
)
def test_equals_timm(name, padding, epsilon, sizes):
    peer = randomize(timm.create_model(name)).eval()
    backbone = backbones.build(
        "efficientnet_b0", levels=LEVELS, padding=padding, epsilon=epsilon
    )
    compare(backbone, peer, efficientnet.TIMM, TIMM_MODULES, sizes)


@pytest.mark.parametrize("index", range(1, 8))
def test_names_and_shapes_are_the_peers(index):
    name = f"efficientnet_b{index}"
    backbone = backbones.build(name, levels=LEVELS)
    with torch.device("meta"):
        peers = {
            efficientnet.TORCHVISION: getattr(torchvision.models, name)(weights=None),
            efficientnet.TIMM: timm.create_model(name),
        }
    for pairs, peer in peers.items():
        slots = convert.slots(shapes_of(backbone), pairs).values()
        theirs = {
            key: tuple(x.shape)
            for key, x in peer.state_dict().items()
            if not key.startswith("classifier.")
            and not key.endswith(convert.IGNORED_LEAF)
        }
        assert {slot.name: slot.shape for slot in slots} == theirs
