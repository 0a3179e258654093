"""MobileNets against torchvision's and timm's, evaluated and trained.

timm has no MobileNetV1 or V2 whose weights TensorFlow trained, so "same" padding is
compared with its own networks, made with that padding.
"""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones
from fpn_jax.pretrained import convert, mobilenet
from tests.parity.classifiers import compare, maps_of, variables_of
from tests.parity.peers import (
    from_torch,
    randomize,
    relative_difference,
    timm,
    to_torch,
    torch,
    torchvision,
)

LEVELS = (1, 2, 3, 4, 5)
SIZES = (224, 225, 97)
TORCHVISION_MODULES = {
    level: f"features.{i}" for level, i in zip(LEVELS, (1, 3, 6, 13, 18), strict=True)
}
TIMM_MODULES = {
    "mobilenet_v1": {level: f"blocks.{level - 1}" for level in LEVELS},
    "mobilenet_v2": {
        **{1: "blocks.0", 2: "blocks.1", 3: "blocks.2", 4: "blocks.4"},
        5: "bn2",
    },
}


def torchvision_peer(**arguments):
    peer = torchvision.models.mobilenet_v2(weights=None, **arguments)
    return randomize(peer).eval()


@pytest.mark.parametrize(("width", "sizes"), [(1.0, SIZES), (1.4, (97,))])
def test_v2_equals_torchvision(width, sizes):
    peer = torchvision_peer(width_mult=width)
    backbone = backbones.build("mobilenet_v2", levels=LEVELS, width_multiplier=width)
    pairs = mobilenet.TORCHVISION
    compare(backbone, peer, pairs, TORCHVISION_MODULES, sizes)


@pytest.mark.parametrize(
    ("name", "padding", "sizes"),
    [
        ("mobilenet_v1", "symmetric", SIZES),
        ("mobilenet_v1", "same", (98, 97)),
        ("mobilenet_v2", "symmetric", (97,)),
        ("mobilenet_v2", "same", (98, 97)),
    ],
)
def test_equals_timm(name, padding, sizes):
    theirs, pairs = {
        "mobilenet_v1": ("mobilenetv1_100", mobilenet.TIMM_V1),
        "mobilenet_v2": ("mobilenetv2_100", mobilenet.TIMM),
    }[name]
    pad_type = "same" if padding == "same" else ""
    peer = randomize(timm.create_model(theirs, pad_type=pad_type)).eval()
    backbone = backbones.build(name, levels=LEVELS, padding=padding)
    compare(backbone, peer, pairs, TIMM_MODULES[name], sizes)


def test_without_the_head_convolution_level_5_is_what_it_reads():
    pairs = [pair for pair in mobilenet.TORCHVISION if "top" not in pair[0]]
    backbone = backbones.build("mobilenet_v2", levels=(5,), head_conv=False)
    compare(backbone, torchvision_peer(), pairs, {5: "features.17"}, sizes=(33,))


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
    maps = maps_of(peer, TORCHVISION_MODULES, to_torch(x))
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
    peer, pairs = torchvision_peer(), mobilenet.TORCHVISION
    backbone = backbones.build("mobilenet_v2", levels=LEVELS)
    variables = variables_of(backbone, peer, pairs)
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
        step = jax.jit(jax.grad(loss, has_aux=True))
        gradient, (maps, updated) = step(params)
    for level, x in maps.items():
        assert relative_difference(x, expected[level]) < 1e-5, level
    ours = {"params": gradient, **updated}
    ours = {key: {"backbone": tree} for key, tree in ours.items()}
    # A shift before a normalization has no gradient but its rounding errors.
    largest = max(x.abs().max().item() for x in gradients.values())
    for key, x in convert.to_state_dict(ours, pairs).items():
        theirs = gradients.get(key, state[key]).numpy()
        least = 1e-12 * largest if key in gradients else 0
        atol = 1e-5 * np.abs(theirs).max() + least
        np.testing.assert_allclose(x, theirs, rtol=0, atol=atol, err_msg=key)
