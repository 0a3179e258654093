"""Context blocks against segmentation_models.pytorch and torchvision."""

import functools

import jax
import numpy as np
import pytest

from fpn_jax.layers.context import ASPP, PPM
from tests.parity.peers import (
    from_torch,
    randomize,
    relative_difference,
    smp,
    to_torch,
    torch,
)
from tests.parity.peers import torchvision as tv

SIZES = [(12, 12), (7, 10), (4, 3)]


def a_map(size, channels):
    return np.random.default_rng(0).normal(size=(2, *size, channels)).astype(np.float32)


def conv(module):
    weights = {"kernel": module.weight.detach().numpy().transpose(2, 3, 1, 0)}
    if module.bias is not None:
        weights["bias"] = module.bias.detach().numpy()
    return weights


def variables_of(peers):
    """Returns our variables, from name → the peer's convolution and its norm."""
    params, statistics = {}, {}
    for name, (convolution, norm, *_) in peers.items():
        params[name] = {"conv": conv(convolution)}
        if isinstance(norm, torch.nn.BatchNorm2d):
            scale, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
            mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
            params[name]["norm"] = {"scale": scale, "bias": bias}
            statistics[name] = {"norm": {"mean": mean, "var": var}}
    return {"params": params, "batch_stats": statistics}


def difference(block, variables, peer, x):
    with torch.no_grad():
        expected = from_torch(peer(to_torch(x)))
    run = jax.jit(
        functools.partial(block.apply, train=False),
    )
    return relative_difference(run(variables, x), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bins", [(1, 2, 3, 6), (2, 4)])
def test_ppm(size, bins):
    psp = smp.decoders.pspnet.decoder.PSPModule
    peer = randomize(psp(8, sizes=bins)).eval()
    blocks = zip(bins, peer.blocks, strict=True)
    variables = variables_of({f"bin{n}": block.pool[1] for n, block in blocks})
    assert difference(PPM(bins=bins), variables, peer, a_map(size, 8)) < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_aspp(size):
    rates = (2, 4, 6)
    peer = tv.models.segmentation.deeplabv3.ASPP(5, rates, out_channels=6)
    peer = randomize(peer).eval()
    point, *dilated, image = peer.convs
    branches = {f"dilated{i}": branch for i, branch in enumerate(dilated, 1)}
    branches |= {"point": point, "image": list(image)[1:], "project": peer.project}
    block = ASPP(width=6, rates=rates)
    assert difference(block, variables_of(branches), peer, a_map(size, 5)) < 1e-4


@pytest.mark.parametrize("module", ["ppm", "aspp"])
def test_parameters_as_many_as_the_peers(module):
    peer, block, channels = {
        "ppm": (smp.decoders.pspnet.decoder.PSPModule(2048), PPM(), 2048),
        "aspp": (
            tv.models.segmentation.deeplabv3.ASPP(2048, (12, 24, 36)),
            ASPP(rates=(12, 24, 36)),
            2048,
        ),
    }[module]
    shape = jax.ShapeDtypeStruct((1, 8, 8, channels), np.float32)
    variables = jax.eval_shape(
        lambda x: block.init(jax.random.key(0), x, train=False), shape
    )
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert ours == sum(parameter.numel() for parameter in peer.parameters())
