"""Poolings against those of PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops import pooling
from fpn_jax.ops.spatial_pyramid import adaptive_average_pool, adaptive_pool
from tests.parity.peers import from_torch, relative_difference, to_torch, torch

functional = torch.nn.functional
WINDOWS = [(2, 2, 0), (3, 2, 1), (2, 3, 0), ((3, 2), (1, 3), (1, 0))]
SIZES = [(8, 8), (7, 9)]


def maps(size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def ours(function, x):
    return jax.jit(function)(jnp.asarray(x))


def sides(padding):
    return padding if isinstance(padding, int) else tuple((p, p) for p in padding)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "stride", "padding"), WINDOWS)
def test_windows(window, stride, padding, size):
    x = maps(size)
    peers = [
        functional.max_pool2d(to_torch(x), window, stride, padding),
        functional.avg_pool2d(
            to_torch(x), window, stride, padding, count_include_pad=False
        ),
    ]
    arguments = window, stride, sides(padding)
    found = ours(
        lambda x: [
            pooling.max_pool(x, *arguments),
            pooling.average_pool(x, *arguments),
        ],
        x,
    )
    for actual, peer in zip(found, peers, strict=True):
        assert relative_difference(actual, from_torch(peer)) < 1e-6


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), ((3, 2), (1, 3))])
def test_lp(window, stride):
    x = np.abs(maps((7, 9)))
    # PyTorch's is a sum where ours is a mean.
    cells = window * window if isinstance(window, int) else np.prod(window)
    *found, l2 = ours(
        lambda x: [
            *(pooling.lp_pool(x, window, stride, p=p) for p in (1, 2, 3.5)),
            pooling.l2_pool(x, window, stride),
        ],
        x,
    )
    for p, actual in zip((1, 2, 3.5), found, strict=True):
        peer = from_torch(functional.lp_pool2d(to_torch(x), p, window, stride))
        assert relative_difference(actual * cells ** (1 / p), peer) < 1e-5
        if p == 2:
            assert relative_difference(l2 * cells, peer) < 1e-5


@pytest.mark.parametrize("size", [(7, 9), (3, 2)])
@pytest.mark.parametrize("bins", [1, 2, 4, (3, 7)])
def test_bins(bins, size):
    x = maps(size)
    peers = [
        functional.adaptive_max_pool2d(to_torch(x), bins),
        functional.adaptive_avg_pool2d(to_torch(x), bins),
    ]
    found = ours(
        lambda x: [
            adaptive_pool(x, bins, pooling.max_pool),
            adaptive_average_pool(x, bins),
        ],
        x,
    )
    for actual, peer in zip(found, peers, strict=True):
        assert relative_difference(actual, from_torch(peer)) < 1e-6


def test_median():
    x = maps((7, 9))
    # PyTorch has no median pool; its median of an odd number of cells is the same.
    patches = functional.unfold(to_torch(x), 3, stride=2).reshape(2, 3, 9, 3, 4)
    peer = from_torch(patches.median(dim=2).values)
    actual = ours(lambda x: pooling.median_pool(x, 3, 2), x)
    assert relative_difference(actual, peer) == 0
