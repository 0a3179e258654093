"""A classifier as a sliding window equals that of every crop, where nothing pads."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fpn_jax import backbones, heads, necks
from fpn_jax.errors import InputError
from fpn_jax.model import PyramidModel
from fpn_jax.ops.sliding_window import windows


class Lecture(nn.Module):
    """5 × 5 convolution of 16 channels and a max-pool, both without padding."""

    levels: tuple[int, ...] = (1,)
    channels: ClassVar[dict] = {1: 16}

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(16, (5, 5), padding="VALID", name="conv")(x))
        return {1: nn.max_pool(x, (2, 2), (2, 2))}


class FullyConnected(nn.Module):
    """400 features from the flattened map, 400 more, four classes."""

    @nn.compact
    def __call__(self, pyramid, *, train):
        x = pyramid[1].reshape(len(pyramid[1]), -1)
        for width in (400, 400):
            x = nn.relu(nn.Dense(width)(x))
        return {"logits": nn.Dense(4)(x)}


def model(backbone, head, neck="identity"):
    return PyramidModel(backbone, necks.build(neck), head)


def variables_of(made, size, seed=0):
    """Returns random variables for images of a size, with means that are not 0."""
    shapes = jax.eval_shape(
        functools.partial(made.init, train=False),
        jax.random.key(0),
        jnp.zeros((1, *size, 3)),
    )
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(0.02, 0.1, leaf.shape).astype(np.float32), shapes
    )


def compared(made, window, size, stride):
    """Returns the logits of all windows, and those of all crops."""
    variables = variables_of(made, window)
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 255, (2, *size, 3)).astype(np.float32)
    slide = functools.partial(made.apply, method="slide", window=window)
    ours = jax.jit(slide)(variables, images)["logits"]
    apply = jax.jit(functools.partial(made.apply, train=False))
    rows, columns = ((s - w) // stride + 1 for s, w in zip(size, window, strict=True))
    crops = [
        images[
            :, stride * i : stride * i + window[0], stride * j : stride * j + window[1]
        ]
        for i in range(rows)
        for j in range(columns)
    ]
    theirs = np.stack([apply(variables, crop)["logits"] for crop in crops], 1)
    return ours, theirs.reshape(2, rows, columns, -1)


@pytest.mark.parametrize(("size", "count"), [(14, 1), (16, 2), (28, 8)])
def test_the_network_of_the_lecture(size, count):
    made = model(Lecture(), FullyConnected())
    ours, crops = compared(made, (14, 14), (size, size), 2)
    assert ours.shape == (2, count, count, 4)
    scale = np.abs(crops).max()
    np.testing.assert_allclose(ours, crops, atol=1e-6 * max(scale, 1))


@pytest.mark.parametrize("head", ["mlp", "flatten"])
def test_lenet_without_padding_equals_its_crops(head):
    backbone = backbones.build("lenet5", padding="paper", levels=(2,))
    spec = backbone.paper_head if head == "mlp" else {"name": "flatten"}
    made = model(backbone, heads.build(spec, num_classes=3))
    ours, crops = compared(made, (32, 32), (44, 40), 4)
    assert ours.shape == (2, 4, 3, 3)
    np.testing.assert_allclose(ours, crops, atol=1e-5 * np.abs(crops).max())


def test_with_padding_the_windows_have_their_surroundings():
    backbone = backbones.build("lenet5", padding="symmetric", levels=(2,))
    made = model(backbone, heads.build("pool", num_classes=3))
    ours, crops = compared(made, (32, 32), (40, 40), 4)
    assert ours.shape == crops.shape
    difference = np.abs(ours - crops).max() / np.abs(crops).max()
    assert 1e-4 < difference < 0.5


def test_levels_of_a_pyramid_move_together():
    pyramid = {
        level: jnp.arange(size * size, dtype=jnp.float32).reshape(1, size, size, 1)
        for level, size in {1: 8, 2: 4}.items()
    }
    found, places = windows(pyramid, {1: (4, 4), 2: (2, 2)})
    assert places == (3, 3)
    np.testing.assert_array_equal(found[1][4], pyramid[1][0, 2:6, 2:6])
    np.testing.assert_array_equal(found[2][4], pyramid[2][0, 1:3, 1:3])
    with pytest.raises(InputError, match="fewer than the window's"):
        windows(pyramid, {1: (9, 4), 2: (2, 2)})
