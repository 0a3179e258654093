"""Where cells are, measured by the gradient of a cell on the image.

Every kernel is replaced by its centre tap and every max-pool by a mean. The gradient
of an inner cell is then a small patch around the centre of its receptive field, at
every depth, and its centroid is that centre, whatever the formula says.
"""

import jax
import numpy as np
import pytest

from fpn_jax import backbones
from fpn_jax.backbones.efficientnet import EfficientNet, Scaling
from fpn_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fpn_jax.backbones.vgg import VGG
from fpn_jax.ops.kernels import windows
from fpn_jax.ops.receptive_field import SlidingWindow, cell_offset
from fpn_jax.pyramid import is_aligned

TOLERANCE = 0.2
"""Pixels. Offsets are multiples of 1/2; padding near a cell moves the centroid less."""
SIZE = (131, 140)
ONE_EACH = {"stage_sizes": (1, 1, 1, 1), "width": 2}
VGG_ARGUMENTS = {"stage_sizes": (1,) * 5, "batch_norm": False, "width": 2}
ALL = (1, 2, 3, 4, 5)


def build(name, **arguments):
    levels = {"lenet5": (1, 2), "alexnet_lrn": (2, 3, 4, 5)}.get(name, ALL)
    return backbones.build(name, **{"levels": levels} | arguments)


CASES = {
    f"{name}-{padding}": lambda name=name, padding=padding, more=more: build(
        name, padding=padding, **more
    )
    for name, more in {
        "lenet5": {},
        "alexnet_lrn": {},
        "googlenet": {},
        "inception_v3": {},
        "mobilenet_v1": {"width_multiplier": 0.25},
        "mobilenet_v2": {"width_multiplier": 0.25, "head_conv": False},
    }.items()
    for padding in backbones.build(name).paddings
} | {
    f"vgg-{padding}": lambda padding=padding: VGG(
        padding=padding, levels=ALL, **VGG_ARGUMENTS
    )
    for padding in ("symmetric", "paper")
}
SHALLOW = Scaling(width=0.25, depth=0.1, native_size=224, dropout=0.0)
for padding in ("symmetric", "same"):
    CASES[f"efficientnet-{padding}"] = lambda padding=padding: EfficientNet(
        SHALLOW, padding=padding, levels=ALL, head_conv=False
    )
for block in (BasicBlock, Bottleneck):
    for padding in ("symmetric", "same"):
        CASES[f"{block.__name__}-{padding}"] = lambda block=block, padding=padding: (
            ResNet(block, padding=padding, levels=ALL, **ONE_EACH)
        )
for padding in ("symmetric", "same"):
    CASES[f"dilated-{padding}"] = lambda padding=padding: ResNet(
        BasicBlock, padding=padding, output_stride=8, levels=(1, 2, 3), **ONE_EACH
    )


def centre_taps(path, leaf):
    """Returns a parameter's value: one path through the middle of every window.

    Two things are cut: the shortcut around a block with a stride, whose centre differs
    where the padding is "same", and the gates of EfficientNet, which see the whole map.
    The branches behind Inception's pools are weak: many pools in a row reach the border
    of a small map, which pulls the centroid.
    """
    names = [key.key for key in path]
    value = np.full(leaf.shape, names[-1] in ("scale", "var"), np.float32)
    if names[-1] == "kernel" and not {"downsample", "squeeze_excite"} & set(names):
        height, width, inputs, _ = leaf.shape
        weight = 0.01 if "branch4" in names else 1
        value[height // 2, width // 2] = weight / inputs
    return value


def as_means(monkeypatch):
    def means(x, larger, window, stride, padding):
        assert larger
        return windows.window_means(x, window, stride, padding)

    monkeypatch.setattr("fpn_jax.ops.pooling.window_extremes", means)


def measured(backbone, image_size):
    """Returns level → an inner cell, and the centroid of its gradient."""
    images = np.full((len(backbone.levels), *image_size, 3), 1e-3, np.float32)
    shapes = jax.eval_shape(
        lambda x: backbone.init(jax.random.key(0), x, train=False), images[:1]
    )
    variables = jax.tree_util.tree_map_with_path(centre_taps, shapes)
    cells = {}

    def inner_cells(images):
        maps = backbone.apply(variables, images, train=False)
        total = 0
        for index, (level, x) in enumerate(maps.items()):
            cells[level] = x.shape[1] // 2, x.shape[2] // 2
            total += x[index, *cells[level]].sum()
        return total

    gradients = np.asarray(jax.jit(jax.grad(inner_cells))(images), np.float64).sum(-1)
    centroids = {}
    for level, gradient in zip(cells, gradients, strict=True):
        assert gradient.sum() > 0
        assert gradient.min() >= 0
        share = gradient / gradient.sum()
        rows, columns = (np.arange(n) + 0.5 for n in image_size)
        centroids[level] = share.sum(1) @ rows, share.sum(0) @ columns
    return cells, centroids


@pytest.mark.parametrize("case", CASES)
def test_a_cell_is_where_its_backbone_declares_it(case, monkeypatch):
    as_means(monkeypatch)
    backbone = CASES[case]()
    cells, centroids = measured(backbone, SIZE)
    offsets = backbone.cell_offset(SIZE)
    assert tuple(offsets) == tuple(cells) == tuple(sorted(backbone.levels))
    for level, offset in offsets.items():
        declared = np.array(offset) + 2**level * np.array(cells[level])
        np.testing.assert_allclose(centroids[level], declared, atol=TOLERANCE)


@pytest.mark.parametrize("name", backbones.names())
def test_every_backbone_declares_the_levels_it_returns(name):
    backbone = backbones.build(name)
    coarsest = max(backbone.levels)
    offsets = backbone.clone(levels=(coarsest, coarsest - 1)).cell_offset((97, 130))
    assert tuple(offsets) == (coarsest - 1, coarsest)
    assert is_aligned(offsets)


def test_known_offsets():
    """Symmetric odd windows keep pixel 0; pools of 2 × 2 move half a stride each."""
    assert build("resnet18").cell_offset((224, 224)) == dict.fromkeys(ALL, (0.5, 0.5))
    halves = {level: (2 ** (level - 1),) * 2 for level in ALL}
    assert build("vgg11").cell_offset((224, 224)) == halves
    # Over even maps "same" pads the lower right only: a cell further at every stride.
    same = build("mobilenet_v1", padding="same")
    assert same.cell_offset((224, 224)) == {
        level: (2**level - 0.5,) * 2 for level in ALL
    }
    assert same.cell_offset((225, 225))[5] == (0.5, 0.5)
    assert same.cell_offset((224, 225))[1] == (1.5, 0.5)


def test_what_is_not_padded_is_not_aligned():
    aligned = {
        name: is_aligned(build(name, padding="paper").cell_offset((224, 224)))
        for name in ("lenet5", "alexnet_lrn", "vgg11", "googlenet", "inception_v3")
    }
    assert aligned == {
        "lenet5": False,
        "alexnet_lrn": True,
        "vgg11": True,
        "googlenet": True,
        "inception_v3": False,
    }


def test_the_size_of_a_map_decides_what_same_pads():
    chain = {1: [SlidingWindow(3, 2, "same")], 2: [SlidingWindow(3, 2, "same")]}
    assert cell_offset((8, 8), chain) == {1: (1.5, 1.5), 2: (3.5, 3.5)}
    assert cell_offset((7, 6), chain) == {1: (0.5, 1.5), 2: (2.5, 1.5)}
