"""Backbone, neck and head together: shapes, gradients, and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, heads, necks
from fpn_jax.backbones.resnet import BasicBlock, ResNet
from fpn_jax.backbones.vgg import VGG
from fpn_jax.errors import InputError
from fpn_jax.model import PyramidModel, check_image_size
from fpn_jax.pyramid import level_size

SIZES = [(33, 33), (64, 64), (97, 97), (224, 224), (97, 130)]


def small_resnet(levels=(2, 3), **arguments):
    return ResNet(
        block=BasicBlock,
        stage_sizes=(1, 1, 1, 1),
        width=4,
        levels=levels,
        zero_init_residual=False,
        **arguments,
    )


def small_model(backbone=None, head="pool", **arguments):
    return PyramidModel(
        backbone or small_resnet(**arguments),
        necks.build("fpn", width=8, **arguments),
        heads.build(head, num_classes=2),
    )


def batch(size=(17, 21), n=4):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *size, 3), np.uint8), np.arange(n) % 2


@functools.cache
def initialized():
    model = small_model()
    images, _ = batch()
    init = jax.jit(functools.partial(model.init, train=False))
    return model, images, init(jax.random.key(0), images)


def cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


@pytest.mark.parametrize("neck", necks.names())
@pytest.mark.parametrize("backbone", backbones.names())
def test_every_backbone_and_neck_at_every_size(backbone, neck):
    model = PyramidModel(
        backbones.build(backbone), necks.build(neck), heads.build("pool", num_classes=2)
    )
    for size in SIZES if backbone in ("resnet18", "vgg11") else SIZES[-1:]:
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.uint8)
        maps, _ = jax.eval_shape(
            lambda x: model.init_with_output(
                jax.random.key(0), x, train=False, method="features"
            ),
            images,
        )
        assert list(maps) == list(model.channels)
        for level, x in maps.items():
            assert x.shape == (2, *level_size(size, level), model.channels[level])


def test_predictions_are_the_heads_on_the_features():
    model, images, variables = initialized()
    assert set(variables["params"]) == {"backbone", "neck", "head"}
    maps = model.apply(variables, images, train=False, method="features")
    predictions = model.apply(variables, maps, train=False, method="predict")
    expected = model.apply(variables, images, train=False)
    np.testing.assert_array_equal(predictions["logits"], expected["logits"])
    assert expected["logits"].dtype == jnp.float32


def test_evaluation_is_deterministic_and_one_image_does_not_see_another():
    model, images, variables = initialized()
    logits = model.apply(variables, images, train=False)["logits"]
    again = model.apply(variables, images, train=False)["logits"]
    np.testing.assert_array_equal(logits, again)
    alone = model.apply(variables, images[:1], train=False)["logits"]
    np.testing.assert_allclose(alone, logits[:1], atol=1e-5)


def test_floating_images_mean_the_same_as_uint8():
    model, images, variables = initialized()
    np.testing.assert_array_equal(
        model.apply(variables, images, train=False)["logits"],
        model.apply(variables, images.astype(np.float32), train=False)["logits"],
    )


def test_images_are_normalized_by_the_models_mean_and_std():
    model, images, variables = initialized()
    other = model.clone(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels = (images / 255 - model.mean) / model.std
    np.testing.assert_allclose(
        other.apply(variables, pixels * 255, train=False)["logits"],
        model.apply(variables, images, train=False)["logits"],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        (small_resnet(), "flatten"),
        (VGG((1, 1, 1, 1, 1), batch_norm=False, width=4, levels=(2, 3)), "pool"),
    ],
    ids=["resnet-flatten", "vgg-pool"],
)
def test_gradients_are_finite_and_reach_every_parameter(backbone, head):
    model = small_model(backbone, head)
    images, labels = batch()
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), images
    )

    def loss(parameters):
        predictions, _ = model.apply(
            {**variables, "params": parameters},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return cross_entropy(predictions["logits"], labels)

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.abs(leaf).max() > 0, path


def test_bfloat16_agrees_with_float32():
    model, images, variables = initialized()
    model16 = small_model(dtype=jnp.bfloat16)
    expected = model.apply(variables, images, train=False)["logits"]
    actual = model16.apply(variables, images, train=False)["logits"]
    assert actual.dtype == jnp.float32
    assert np.abs(actual - expected).max() < 2e-2 * np.abs(expected).max()


def test_two_devices_with_synced_batch_norm_equal_one_large_batch():
    model, images, variables = initialized()
    labels = np.arange(len(images)) % 2

    def gradients(model, parameters, images, labels):
        def loss(parameters):
            predictions, updated = model.apply(
                {**variables, "params": parameters},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return cross_entropy(predictions["logits"], labels), updated

        return jax.grad(loss, has_aux=True)(parameters)

    synced = small_model(axis_name="data")
    parallel = jax.pmap(
        lambda p, x, y: jax.lax.pmean(gradients(synced, p, x, y), "data"),
        axis_name="data",
        in_axes=(None, 0, 0),
        devices=jax.devices()[:2],
    )
    two = parallel(
        variables["params"],
        images.reshape(2, -1, *images.shape[1:]),
        labels.reshape(2, -1),
    )
    one = jax.jit(functools.partial(gradients, model))(
        variables["params"], images, labels
    )
    for (path, expected), actual in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(two), strict=True
    ):
        scale = np.abs(expected).max()
        for replica in np.asarray(actual):
            error = np.abs(replica - expected).max()
            assert error <= 1e-4 * scale + 1e-6, path


@pytest.mark.parametrize("shape", [(17, 21, 3), (1, 17, 21, 4), (1, 17, 21, 1)])
def test_other_shapes_are_refused(shape):
    model, _, variables = initialized()
    with pytest.raises(ValueError, match=r"it must be \[B, H, W, 3\]"):
        model.apply(variables, np.zeros(shape, np.uint8), train=False)


def test_an_image_must_fill_a_cell_of_the_coarsest_level():
    check_image_size((32, 33), (2, 3, 4, 5))
    with pytest.raises(InputError, match=r"31 × 64 is too small for level 5.* 32 pix"):
        check_image_size((31, 64), (2, 3, 4, 5))
    model, _, variables = initialized()
    with pytest.raises(InputError, match="7 × 9 is too small for level 3"):
        model.apply(variables, np.zeros((1, 7, 9, 3), np.uint8), train=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mean": (0.5,)}, "mean is"),
        ({"std": (0.2, 0.2)}, "std is"),
        ({"std": (0.2, 0.0, 0.2)}, "std is"),
        ({"neck": necks.FPN(levels=(2, 4))}, r"wants levels \(2, 4\)"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, sentence):
    parts = {
        "backbone": small_resnet(),
        "neck": necks.Identity(),
        "head": heads.PoolClassifier(num_classes=2),
    }
    with pytest.raises(InputError, match=sentence):
        PyramidModel(**parts | arguments)
