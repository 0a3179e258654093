"""The networks of the dense tasks: sizes, counts of parameters, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, heads, necks
from fpn_jax.errors import InputError
from fpn_jax.model import PyramidModel
from fpn_jax.necks.deeplab import rates_at
from fpn_jax.tasks import Localization, Segmentation
from fpn_jax.tasks.landmarks import LandmarkHeatMaps, LandmarkPoints

SIZES = [(33, 97), (64, 64), (47, 50), (97, 33)]
WIDTHS = (16, 16, 8, 8)

NETWORKS = {
    "fpn": ({"name": "fpn", "width": 8}, {"name": "semantic_fpn", "width": 32}),
    "psp": (
        {"name": "ppm", "kept_levels": (4,)},
        {"name": "auxiliary_class_map", "width": 8},
    ),
    "deeplab": ({"name": "deeplab", "width": 8}, {"name": "class_map"}),
    "unet": ({"name": "unet", "widths": WIDTHS}, {"name": "class_map"}),
    "unet_transposed": (
        {"name": "unet", "widths": WIDTHS, "upsampling": "transposed"},
        {"name": "class_map"},
    ),
}
TASKS = {
    "localizer": Localization(2),
    "landmark_heat_maps": LandmarkHeatMaps(5),
    "landmark_points": LandmarkPoints(5),
}


def model(neck, head, **arguments):
    backbone = backbones.build("resnet18", width=8, levels=(1, 2, 3, 4, 5))
    return PyramidModel(backbone, necks.build(neck), heads.build(head, given=arguments))


def predictions(network, size, batch=2):
    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
    init = functools.partial(network.init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_segments_images_of_any_size(name, size):
    neck, head = NETWORKS[name]
    weight = 0.4 if name == "psp" else 0.0
    task = Segmentation(3, auxiliary_weight=weight)
    found = predictions(model(neck, head, **task.head_arguments()), size)
    assert set(found) == set(task.reads)
    answer = jax.eval_shape(lambda x: task.decode(x, size), found)
    assert answer["mask"].shape == (2, *size)
    assert answer["mask_probabilities"].shape == (2, *size, 3)
    batch = {"mask": jax.ShapeDtypeStruct((2, *size), jnp.uint8)}
    losses = jax.eval_shape(task.losses, found, batch)
    assert all(loss.shape == (2,) for loss in losses.values())
    assert ("auxiliary" in losses) == (name == "psp")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TASKS)
def test_the_heads_of_places_take_images_of_any_size(name, size):
    task = TASKS[name]
    head = {"name": name, "width": 32}
    neck = {"name": "fpn", "width": 8}
    found = predictions(model(neck, head, **task.head_arguments()), size)
    answer = jax.eval_shape(lambda x: task.decode(x, size), found)
    shapes = {key: value.shape for key, value in answer.items()}
    if name == "localizer":
        assert shapes["boxes"] == (2, 1, 4)
    else:
        assert shapes["landmarks"] == (2, 5, 3)


def test_the_unet_of_the_paper_has_its_number_of_parameters():
    """Counted from the layer table of the paper, for three channels and one class."""
    backbone = backbones.build("unet")
    widths = (512, 256, 128, 64)
    neck = necks.build("unet", widths=widths, upsampling="transposed", norm="none")
    network = PyramidModel(backbone, neck, heads.build("class_map", num_mask_classes=2))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    init = functools.partial(network.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    # A head of two classes has 65 parameters more than one of a single class.
    assert total - 65 == 31_031_745


def test_the_rates_of_deeplab_follow_the_stride_of_the_coarsest_map():
    assert rates_at(3) == (12, 24, 36)
    given = necks.build("deeplab", width=8, rates=(12, 24, 36))
    automatic = necks.build("deeplab", width=8)
    maps = {k: jnp.ones((1, 64 // 2**k, 64 // 2**k, 4)) for k in (2, 3)}
    variables = automatic.init(jax.random.key(0), maps, train=False)
    results = [neck.apply(variables, maps, train=False) for neck in (given, automatic)]
    np.testing.assert_array_equal(results[0][2], results[1][2])


@pytest.mark.parametrize(
    ("neck", "text"),
    [
        ({"name": "deeplab", "fine_level": 0}, "fine_level is 0; DeepLab needs it"),
        ({"name": "deeplab", "fine_level": 5}, "fine_level is 5; DeepLab needs it"),
        ({"name": "unet", "widths": (8, 8)}, "U-Net makes one level for each of its 2"),
        ({"name": "unet", "widths": ()}, r"widths are \(\); give one or more"),
        ({"name": "ppm", "kept_levels": (5,)}, r"kept_levels are \(5,\); the levels"),
        ({"name": "ppm", "kept_levels": (0,)}, r"kept_levels are \(0,\); the levels"),
    ],
)
def test_levels_that_do_not_fit_are_refused(neck, text):
    with pytest.raises(InputError, match=text):
        model(neck, {"name": "class_map"}, num_mask_classes=2)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ({"name": "class_map", "kernel_size": 2}, "kernel_size is 2; it must be odd"),
        ({"name": "class_map", "dropout": 1.0}, "dropout is 1.0; it must be in"),
        ({"name": "semantic_fpn", "width": 20}, "norm 'group' needs a multiple of 32"),
    ],
)
def test_arguments_of_heads_that_do_not_fit_are_refused(head, text):
    with pytest.raises(InputError, match=text):
        heads.build(head, {"num_mask_classes": 2})


def test_an_auxiliary_head_needs_a_finer_level():
    network = model(
        {"name": "ppm"}, {"name": "auxiliary_class_map"}, num_mask_classes=2
    )
    with pytest.raises(InputError, match="need a level finer than 5; set neck"):
        predictions(network, (64, 64))
