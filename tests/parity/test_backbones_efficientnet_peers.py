"""EfficientNets against torchvision's and timm's.

B0 and B2, which is wider and deeper, are compared whole, B5, whose epsilon is another,
up to level 2; the others by names and shapes alone: they differ by factors only, and
compiling them takes minutes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import (
    from_torch,
    randomize,
    relative_difference,
    timm,
    to_torch,
    torch,
    torchvision,
)

from fpn_jax import backbones
from fpn_jax.pretrained import convert, efficientnet

LEVELS = (1, 2, 3, 4, 5)
FAST = {"xla_backend_optimization_level": 0}
LAST_STAGE = {1: 1, 2: 2, 3: 3, 4: 5, 5: 7}
COLLECTIONS = ("params", "batch_stats")


@functools.cache
def target(backbone):
    shapes = jax.eval_shape(
        lambda x: backbone.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
    )
    return {key: {"backbone": shapes[key]} for key in COLLECTIONS}


def variables_of(backbone, peer, pairs):
    state = {key: x.numpy() for key, x in peer.state_dict().items()}
    slots = convert.slots(target(backbone), pairs).values()
    extra = set(state) - {slot.name for slot in slots}
    ours = convert.from_state_dict(state, target(backbone), pairs, known=extra)
    return {key: value["backbone"] for key, value in ours.items()}


def torchvision_maps(peer, x):
    stages = [peer.features[0](x)]
    for stage in peer.features[1:]:
        stages.append(stage(stages[-1]))
    return {level: stages[stage] for level, stage in LAST_STAGE.items()} | {
        5: stages[-1]
    }


def timm_maps(peer, x):
    stages = [peer.bn1(peer.conv_stem(x))]
    for stage in peer.blocks:
        stages.append(stage(stages[-1]))
    return {level: stages[stage] for level, stage in LAST_STAGE.items()} | {
        5: peer.bn2(peer.conv_head(stages[-1]))
    }


def compare(backbone, variables, peer, maps_of, size):
    x = np.random.default_rng(size).normal(size=(1, size, size, 3)).astype(np.float32)
    apply = jax.jit(functools.partial(backbone.apply, train=False))
    maps = apply.lower(variables, x).compile(FAST)(variables, x)
    with torch.no_grad():
        expected = maps_of(peer, to_torch(x))
    assert tuple(maps) == tuple(backbone.levels)
    for level in backbone.levels:
        assert relative_difference(maps[level], from_torch(expected[level])) < 1e-4


@functools.cache
def torchvision_pair(name, levels):
    peer = randomize(getattr(torchvision.models, name)(weights=None)).eval()
    backbone = backbones.build(name, levels=levels)
    return backbone, variables_of(backbone, peer, efficientnet.TORCHVISION), peer


@functools.cache
def timm_pair(name, padding, epsilon):
    peer = randomize(timm.create_model(name)).eval()
    backbone = backbones.build(
        "efficientnet_b0", levels=LEVELS, padding=padding, epsilon=epsilon
    )
    return backbone, variables_of(backbone, peer, efficientnet.TIMM), peer


@pytest.mark.parametrize(
    ("name", "levels", "size"),
    [
        *(("efficientnet_b0", LEVELS, size) for size in (224, 225, 97)),
        ("efficientnet_b2", LEVELS, 97),
        ("efficientnet_b5", (1, 2), 65),
    ],
)
def test_equals_torchvision(name, levels, size):
    compare(*torchvision_pair(name, levels), torchvision_maps, size)


@pytest.mark.parametrize(
    ("name", "padding", "epsilon", "size"),
    [
        ("efficientnet_b0", "symmetric", None, 97),
        ("tf_efficientnet_b0", "same", 1e-3, 97),
        ("tf_efficientnet_b0", "same", 1e-3, 98),
    ],
)
def test_equals_timm(name, padding, epsilon, size):
    compare(*timm_pair(name, padding, epsilon), timm_maps, size)


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
        slots = convert.slots(target(backbone), pairs).values()
        theirs = {
            key: tuple(x.shape)
            for key, x in peer.state_dict().items()
            if not key.startswith("classifier.")
            and not key.endswith(convert.IGNORED_LEAF)
        }
        assert {slot.name: slot.shape for slot in slots} == theirs
