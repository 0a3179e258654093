"""MobileNets against torchvision's and timm's, evaluated and trained.

timm has no MobileNetV1 or V2 whose weights TensorFlow trained, so "same" padding is
compared with its own networks, made with that padding.
"""

import copy
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
from fpn_jax.pretrained import convert, mobilenet

LEVELS = (1, 2, 3, 4, 5)
SIZES = [224, 225, 97]
FAST = {"xla_backend_optimization_level": 0}
V1_LAST = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}
V2_LAST = {0: 1, 1: 2, 2: 3, 4: 4, 6: 5}


def images(size, batch=1):
    rng = np.random.default_rng(size)
    return rng.normal(size=(batch, size, size, 3)).astype(np.float32)


def from_peer(backbone, state, pairs, collections):
    """Returns a state dict as the backbone's variables of some collections."""
    shapes = jax.eval_shape(
        lambda x: backbone.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
    )
    target = {key: {"backbone": shapes[key]} for key in collections}
    state = {key: x.detach().numpy() for key, x in state.items()}
    wanted = {slot.name for slot in convert.slots(target, pairs).values()}
    ours = convert.from_state_dict(state, target, pairs, known=set(state) - wanted)
    return {key: value["backbone"] for key, value in ours.items()}


def variables_of(backbone, peer, pairs):
    collections = ("params", "batch_stats")
    return from_peer(backbone, peer.state_dict(), pairs, collections)


def torchvision_maps(peer, x):
    last = {1: 1, 3: 2, 6: 3, 13: 4, 18: 5}
    maps = {}
    for index, module in enumerate(peer.features):
        x = module(x)
        if index in last:
            maps[last[index]] = x
    return maps


def timm_maps(last, peer, x):
    x = peer.bn1(peer.conv_stem(x))
    maps = {}
    for index, stage in enumerate(peer.blocks):
        x = stage(x)
        if index in last:
            maps[last[index]] = x
    # MobileNetV1 ends here.
    maps[5] = peer.bn2(peer.conv_head(x)) if peer.conv_head else x
    return maps


def compare(backbone, variables, peer, maps_of, size):
    x = images(size)
    apply = jax.jit(functools.partial(backbone.apply, train=False))
    maps = apply.lower(variables, x).compile(FAST)(variables, x)
    with torch.no_grad():
        expected = maps_of(peer, to_torch(x))
    assert tuple(maps) == LEVELS
    for level in LEVELS:
        assert relative_difference(maps[level], from_torch(expected[level])) < 1e-4


@functools.cache
def torchvision_pair():
    peer = randomize(torchvision.models.mobilenet_v2(weights=None)).eval()
    backbone = backbones.build("mobilenet_v2", levels=LEVELS)
    return backbone, variables_of(backbone, peer, mobilenet.TORCHVISION), peer


@functools.cache
def timm_pair(name, padding):
    peers = {
        "mobilenet_v1": ("mobilenetv1_100", mobilenet.TIMM_V1),
        "mobilenet_v2": ("mobilenetv2_100", mobilenet.TIMM),
    }
    theirs, pairs = peers[name]
    pad_type = "same" if padding == "same" else ""
    peer = randomize(timm.create_model(theirs, pad_type=pad_type)).eval()
    backbone = backbones.build(name, levels=LEVELS, padding=padding)
    return backbone, variables_of(backbone, peer, pairs), peer


@pytest.mark.parametrize("size", SIZES)
def test_v2_equals_torchvision(size):
    compare(*torchvision_pair(), torchvision_maps, size)


@pytest.mark.parametrize(
    ("name", "padding", "sizes"),
    [
        ("mobilenet_v1", "symmetric", SIZES),
        ("mobilenet_v1", "same", [98, 97]),
        ("mobilenet_v2", "symmetric", [97]),
        ("mobilenet_v2", "same", [98, 97]),
    ],
)
def test_equals_timm(name, padding, sizes):
    last = V1_LAST if name == "mobilenet_v1" else V2_LAST
    for size in sizes:
        maps_of = functools.partial(timm_maps, last)
        compare(*timm_pair(name, padding), maps_of, size)


def test_without_the_head_convolution_level_5_is_what_it_reads():
    _, variables, peer = torchvision_pair()
    backbone = backbones.build("mobilenet_v2", levels=(5,), head_conv=False)
    x = images(33)
    ours = jax.jit(functools.partial(backbone.apply, train=False))
    with torch.no_grad():
        expected = peer.features[:18](to_torch(x))
    maps = ours.lower(variables, x).compile(FAST)(variables, x)
    assert relative_difference(maps[5], from_torch(expected)) < 1e-4


def training_step_of_torch(peer, x, weights):
    """Returns maps, gradients, and running averages with the biased variance."""
    peer, cells = copy.deepcopy(peer).double().train(), {}
    before = {key: value.clone() for key, value in peer.state_dict().items()}
    for name, module in peer.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: cells.update(
                    {name: inputs[0].numel() // inputs[0].shape[1]}
                )
            )
    maps = torchvision_maps(peer, to_torch(x))
    sum((maps[level] * to_torch(w)).sum() for level, w in weights.items()).backward()
    state = dict(peer.state_dict())
    for name, n in cells.items():
        key = f"{name}.running_var"
        kept = 0.9 * before[key]
        state[key] = kept + (state[key] - kept) * (n - 1) / n
    named = peer.named_parameters()
    gradients = {key: x.grad for key, x in named if x.grad is not None}
    return {key: from_torch(x) for key, x in maps.items()}, gradients, state


def test_training_equals_torchvision():
    """Maps, running averages and every parameter's gradient, in double precision.

    In single precision torch's gradients differ from its own double ones by percents:
    ReLU6 lets through or cuts off, and the coarsest statistics are those of 8 cells.
    Flax keeps the biased variance in its running average, torch the unbiased one.
    """
    backbone, variables, peer = torchvision_pair()
    double = backbone.clone(dtype=jnp.float64)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 64, 64, 3))
    weights = {
        level: rng.normal(size=(2, 64 >> level, 64 >> level, channels))
        for level, channels in backbone.channels.items()
    }
    expected, gradients, state = training_step_of_torch(peer, x, weights)

    def loss(params):
        maps, updated = double.apply(
            variables | {"params": params}, x, train=True, mutable="batch_stats"
        )
        total = sum((maps[level] * w).sum() for level, w in weights.items())
        return total, (maps, updated)

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.float64, variables["params"])
        step = jax.jit(jax.grad(loss, has_aux=True)).lower(params).compile(FAST)
        gradient, (maps, updated) = step(params)
    pairs = mobilenet.TORCHVISION
    updates = from_peer(backbone, state, pairs, ["batch_stats"])
    theirs = from_peer(backbone, gradients, pairs, ["params"])["params"]
    differences = jax.tree.map(
        relative_difference, (maps, updated), (expected, updates)
    )
    assert max(jax.tree.leaves(differences)) < 1e-5
    # A shift before a normalization has no gradient but its rounding errors.
    largest = max(np.abs(g).max() for g in jax.tree.leaves(theirs))
    jax.tree.map(
        lambda ours, g: np.testing.assert_allclose(
            ours, g, rtol=0, atol=1e-5 * np.abs(g).max() + 1e-12 * largest
        ),
        gradient,
        theirs,
    )
