"""The classic networks: sizes and classifiers of their papers, padding, dilation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, heads
from fpn_jax.backbones import alexnet, googlenet, inception_v3, lenet
from fpn_jax.backbones.alexnet import AlexNet
from fpn_jax.backbones.googlenet import GoogLeNet
from fpn_jax.backbones.inception_v3 import InceptionV3
from fpn_jax.backbones.lenet import LeNet5
from fpn_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fpn_jax.backbones.vgg import VGG
from fpn_jax.errors import InputError
from fpn_jax.ops.pooling import max_pool


def shapes(backbone, size, channels=3):
    """Returns the shapes of the pyramid of a square image, and of the variables."""
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    init = functools.partial(backbone.init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)


def random_variables(backbone):
    """Made by NumPy: compiling the initial values takes longer than the test."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(
            rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
            if leaf.ndim == 4
            else rng.uniform(0.5, 1.5, leaf.shape)
        ),
        shapes(backbone, 96)[1],
    )


def images_of(height, width, batch=1):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, height, width, 3)).astype(np.float32)


def evaluate(backbone, variables, images):
    apply = functools.partial(backbone.apply, train=False)
    return jax.jit(apply)(variables, images)


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("lenet5", 32, {1: 14, 2: 5}),
        ("alexnet", 224, {2: 55, 3: 27, 4: 13, 5: 6}),
        ("alexnet_lrn", 224, {2: 55, 3: 27, 4: 13, 5: 6}),
        ("vgg16", 224, {1: 112, 2: 56, 3: 28, 4: 14, 5: 7}),
        ("vgg11", 97, {1: 48, 2: 24, 3: 12, 4: 6, 5: 3}),
        ("googlenet", 224, {1: 112, 2: 56, 3: 28, 4: 14, 5: 7}),
        ("googlenet", 225, {1: 113, 2: 56, 3: 28, 4: 14, 5: 7}),
        ("inception_v3", 299, {1: 147, 2: 71, 3: 35, 4: 17, 5: 8}),
    ],
)
def test_sizes_with_padding_paper_are_the_papers(name, size, cells):
    backbone = backbones.build(name, levels=tuple(cells), padding="paper")
    pyramid, _ = shapes(backbone, size)
    assert {level: x.shape[1] for level, x in pyramid.items()} == cells
    assert all(x.shape[1] == x.shape[2] for x in pyramid.values())
    assert size == backbone.native_size or size in (97, 225)


@pytest.mark.parametrize(
    ("name", "channels", "num_classes", "published"),
    [
        ("lenet5", 1, 10, 61_706),
        ("alexnet", 3, 1000, 61_100_840),
        ("vgg16", 3, 1000, 138_357_544),
        ("resnet18", 3, 1000, 11_689_512),
        ("googlenet", 3, 1000, 6_624_904),
    ],
)
def test_the_papers_classifier_has_its_published_size(
    name, channels, num_classes, published
):
    backbone = backbones.build(name)
    pyramid, variables = shapes(backbone, backbone.native_size, channels)
    head = dict(backbone.paper_head)
    head = heads.build(head.pop("name"), num_classes=num_classes, **head)
    coarsest = {max(pyramid): pyramid[max(pyramid)]}
    init = functools.partial(head.init, train=False)
    of_head = jax.eval_shape(init, jax.random.key(0), coarsest)["params"]
    leaves = jax.tree.leaves((variables["params"], of_head))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == published


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("lenet5", lenet.LEAST),
        ("alexnet", alexnet.LEAST),
        ("vgg11", {level: 2**level for level in (1, 2, 3, 4, 5)}),
        ("googlenet", googlenet.LEAST),
        ("inception_v3", inception_v3.LEAST),
    ],
)
def test_images_that_would_leave_a_map_empty_are_refused(name, least):
    for level, size in least.items():
        backbone = backbones.build(name, levels=(level,), padding="paper")
        assert shapes(backbone, size)[0][level].shape[1:3] == (1, 1)
        sentence = f"{size - 1} × {size - 1} is too small for level {level} of"
        with pytest.raises(InputError, match=f"{sentence}.* at least {size} pixels"):
            shapes(backbone, size - 1)


@pytest.mark.parametrize(
    "make",
    [
        LeNet5,
        functools.partial(AlexNet, local_response_norm=True, levels=(2, 3, 4)),
        functools.partial(GoogLeNet, levels=(2, 3)),
        functools.partial(InceptionV3, levels=(1, 2)),
    ],
    ids=["lenet5", "alexnet_lrn", "googlenet", "inception_v3"],
)
def test_bfloat16_agrees_with_float32(make):
    images, variables = images_of(19, 17), random_variables(make())
    expected = evaluate(make(), variables, images)
    actual = evaluate(make(dtype=jnp.bfloat16), variables, images)
    for level, x in expected.items():
        assert x.dtype == jnp.float32
        assert actual[level].dtype == jnp.bfloat16
        error = np.abs(actual[level].astype(np.float32) - x)
        assert error.max() < 2e-2 * np.abs(x).max()


def test_evaluation_changes_nothing_and_sees_one_image_at_a_time():
    backbone, images = GoogLeNet(levels=(2,)), images_of(16, 16, batch=3)
    variables = random_variables(backbone)
    apply = functools.partial(backbone.apply, train=False, mutable=["batch_stats"])
    both, updated = jax.jit(apply)(variables, images)
    jax.tree.map(
        np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"]
    )
    alone = evaluate(backbone, variables, images[1:2])
    np.testing.assert_allclose(alone[2], both[2][1:2], atol=1e-4)


def test_training_makes_no_difference_without_batch_norm():
    for backbone in (LeNet5(), AlexNet(local_response_norm=True, levels=(2, 3))):
        variables, images = random_variables(backbone), images_of(16, 16)
        train = jax.jit(functools.partial(backbone.apply, train=True))
        maps = train(variables, images)
        expected = jax.jit(functools.partial(backbone.apply, train=False))
        for level, x in expected(variables, images).items():
            np.testing.assert_array_equal(maps[level], x)


def printed_formula(x):
    """Section 3.3 of the paper: k = 2, n = 5, α = 1e-4 of the sum, β = 0.75."""
    x = np.asarray(x, np.float64)
    squares = np.pad(x**2, ((0, 0),) * 3 + ((2, 2),))
    sums = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x / (2 + 1e-4 * sums) ** 0.75


def test_alexnet_normalizes_the_maps_of_its_first_two_convolutions():
    images = images_of(24, 24) * 100
    without = AlexNet(local_response_norm=False, levels=(2, 3))
    variables = random_variables(without)
    plain = evaluate(without, variables, images)
    normalized = evaluate(without.clone(local_response_norm=True), variables, images)
    expected = printed_formula(plain[2])
    np.testing.assert_allclose(normalized[2], expected, rtol=1e-4)
    # The second convolution reads the normalized map, and is normalized itself.
    x = max_pool(normalized[2], window=3, stride=2, padding=1)
    second = alexnet.Stage(alexnet.STAGES[0], jnp.float32)
    x = second.apply({"params": variables["params"]["stage1"]}, x)
    scale = np.abs(normalized[3]).max()
    np.testing.assert_allclose(normalized[3], printed_formula(x), atol=1e-4 * scale)
    assert np.abs(plain[3] - normalized[3]).max() > 1


@pytest.mark.parametrize(
    ("block", "expansion"), [(BasicBlock, 1), (Bottleneck, 4)], ids=["basic", "neck"]
)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_the_same_cells_and_those_between(
    block, expansion, output_stride
):
    plain = ResNet(block=block, stage_sizes=(1, 2, 2, 2), width=4, levels=(2, 5))
    dilated = plain.clone(levels=None, output_stride=output_stride)
    coarsest = dilated.levels[-1]
    assert dilated.levels == tuple(range(2, coarsest + 1))
    assert 2**coarsest == output_stride
    assert dilated.channels[coarsest] == 32 * expansion
    variables, images = random_variables(plain), images_of(65, 50)
    expected = evaluate(plain, variables, images)
    actual = evaluate(dilated, variables, images)
    assert actual[coarsest].shape[1:3] == (
        -(-65 // output_stride),
        -(-50 // output_stride),
    )
    step = 32 // output_stride
    every = actual[coarsest][:, ::step, ::step]
    scale = np.abs(expected[5]).max()
    np.testing.assert_allclose(every, expected[5], atol=1e-5 * scale)
    np.testing.assert_allclose(actual[2], expected[2], rtol=1e-5)


def test_a_dilated_resnet_builds_the_stages_of_its_coarsest_level():
    dilated = functools.partial(backbones.build, "resnet18", output_stride=8)
    for levels, stages in [((3,), 4), ((2,), 1), ((1, 2), 1), ((2, 3), 4)]:
        names = set(shapes(dilated(levels=levels), 32)[1]["params"]) - {"stem"}
        assert names == {f"stage{index + 1}" for index in range(stages)}
    assert dilated().channels == {2: 64, 3: 512}
    assert backbones.build("resnet50", output_stride=16).channels == {
        **{2: 256, 3: 512},
        4: 2048,
    }


def test_same_padding_agrees_with_symmetric_where_every_map_is_odd():
    symmetric = ResNet(block=BasicBlock, stage_sizes=(1, 1, 1, 1), width=4)
    same = symmetric.clone(padding="same")
    variables = random_variables(symmetric)
    for size, equal in [(33, True), (32, False)]:
        images = images_of(size, size)
        expected = evaluate(symmetric, variables, images)
        actual = evaluate(same, variables, images)
        for level, x in expected.items():
            assert actual[level].shape == x.shape
            assert np.allclose(actual[level], x, rtol=1e-4, atol=1e-4) == equal


def test_same_padding_pads_the_lower_right_of_even_maps():
    """An edge is found a cell further than with symmetric padding."""
    kernel = np.zeros((7, 7, 3, 1), np.float32)
    kernel[2, 2, 0, 0] = 1
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1).repeat(3, axis=-1)
    backbone = ResNet(
        block=BasicBlock, stage_sizes=(1, 1, 1, 1), width=1, levels=(1,), padding="same"
    )
    variables = random_variables(backbone)
    norm = {"scale": np.ones(1), "bias": np.zeros(1)}
    statistics = {"mean": np.zeros(1), "var": np.ones(1)}
    variables["params"]["stem"] = {"conv": {"kernel": kernel}, "norm": norm}
    variables["batch_stats"]["stem"] = {"norm": statistics}
    found = evaluate(backbone, variables, image)[1][0, :, :, 0]
    np.testing.assert_allclose(found, image[0, ::2, ::2, 0], rtol=1e-4)


def test_vgg_drops_or_keeps_an_odd_maps_last_cell():
    vgg = VGG((1, 1, 1, 1, 1), batch_norm=False, width=4, levels=(1,))
    variables, images = random_variables(vgg), images_of(9, 8)
    kept = evaluate(vgg, variables, images)[1]
    dropped = evaluate(vgg.clone(padding="paper"), variables, images)[1]
    assert kept.shape[1:3] == (5, 4)
    np.testing.assert_allclose(dropped, kept[:, :4], rtol=1e-5)
