"""The feature pyramid network against torchvision's."""

import functools

import jax
import numpy as np
import pytest

from fpn_jax import necks
from fpn_jax.pyramid import level_size
from tests.parity.peers import from_torch, relative_difference, to_torch, torch
from tests.parity.peers import torchvision as tv

CHANNELS = {2: 3, 3: 5, 4: 7, 5: 8}
WIDTH = 6


def conv(module):
    kernel = module.weight.detach().numpy().transpose(2, 3, 1, 0)
    return {"conv": {"kernel": kernel, "bias": module.bias.detach().numpy()}}


@pytest.mark.parametrize("size", [(64, 96), (97, 75), (33, 130)])
@pytest.mark.parametrize("extra", [None, "max_pool", "conv"])
def test_fpn(size, extra):
    fpn = tv.ops.feature_pyramid_network
    blocks = {
        None: None,
        "max_pool": fpn.LastLevelMaxPool(),
        # As many channels in as out: made from P5, as ours are.
        "conv": fpn.LastLevelP6P7(WIDTH, WIDTH),
    }
    peer = tv.ops.FeaturePyramidNetwork([*CHANNELS.values()], WIDTH, blocks[extra])
    with torch.no_grad():
        for parameter in peer.parameters():
            # Biases start at 0, which would hide that they are read.
            parameter.add_(0.05 * torch.randn(parameter.shape))
    parameters = {}
    for level, lateral, smooth in zip(
        CHANNELS, peer.inner_blocks, peer.layer_blocks, strict=True
    ):
        parameters[f"lateral{level}"] = conv(lateral[0])
        parameters[f"smooth{level}"] = conv(smooth[0])
    if extra == "conv":
        parameters["extra6"] = conv(peer.extra_blocks.p6)
        parameters["extra7"] = conv(peer.extra_blocks.p7)
    number = {None: 0, "max_pool": 1, "conv": 2}[extra]
    arguments = {"extra": extra, "extra_levels": number} if extra else {}
    rng = np.random.default_rng(0)
    maps = {
        level: rng.normal(size=(2, *level_size(size, level), n)).astype(np.float32)
        for level, n in CHANNELS.items()
    }
    with torch.no_grad():
        expected = peer({str(level): to_torch(x) for level, x in maps.items()})
    neck = necks.build("fpn", width=WIDTH, **arguments)
    run = jax.jit(
        functools.partial(neck.apply, train=False),
    )
    actual = run({"params": parameters}, maps)
    assert len(actual) == len(expected) == 4 + number
    for ours, theirs in zip(actual.values(), expected.values(), strict=True):
        assert relative_difference(ours, from_torch(theirs)) < 1e-4
