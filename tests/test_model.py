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
from fpn_jax.imaging.pyramids import gaussian_pyramid
from fpn_jax.model import PyramidModel, check_image_size
from fpn_jax.ops.normalization import normalize
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


def random_variables(model, images):
    """Made by NumPy: compiling the initial values takes longer than the test."""
    rng = np.random.default_rng(1)
    abstract = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), images
    )
    return jax.tree.map(
        lambda leaf: np.float32(
            rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
            if leaf.ndim > 1
            else rng.uniform(0.5, 1.5, leaf.shape)
        ),
        abstract,
    )


@functools.cache
def initialized():
    model, (images, _) = small_model(), batch()
    return model, images, random_variables(model, images)


@functools.cache
def evaluate(model):
    return jax.jit(functools.partial(model.apply, train=False))


def gradients(model, variables, images, labels):
    def loss(parameters):
        predictions, updated = model.apply(
            {**variables, "params": parameters},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        log_p = jax.nn.log_softmax(predictions["logits"])
        return -jnp.take_along_axis(log_p, labels[:, None], 1).mean(), updated

    return jax.grad(loss, has_aux=True)(variables["params"])


@functools.cache
def gradients_of_one_batch():
    model, _, variables = initialized()
    gradient = jax.jit(functools.partial(gradients, model))
    return gradient(variables, *batch())


def assert_shapes(model, size):
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


@pytest.mark.parametrize("neck", necks.names())
@pytest.mark.parametrize("backbone", ["resnet18", "vgg11"])
def test_every_neck_at_every_size(backbone, neck):
    model = PyramidModel(
        backbones.build(backbone), necks.build(neck), heads.build("pool", num_classes=2)
    )
    least = 31 * 2 ** (model.neck.num_scales - 1) + 1
    for size in SIZES:
        if min(size) >= least:
            assert_shapes(model, size)


def families():
    """Returns the first name of every backbone's class."""
    first = {}
    for name, constructor in backbones.BACKBONES.items():
        first.setdefault(getattr(constructor, "func", constructor), name)
    return tuple(first.values())


@pytest.mark.parametrize("name", families())
def test_every_family_of_backbones_with_a_feature_pyramid(name):
    backbone = backbones.build(name)
    head = heads.build("pool", num_classes=2)
    assert_shapes(PyramidModel(backbone, necks.build("fpn"), head), SIZES[-1])


def test_predictions_are_the_heads_on_the_features():
    model, images, variables = initialized()
    assert set(variables["params"]) == {"backbone", "neck", "head"}

    @jax.jit
    def in_two_steps(variables, images):
        maps = model.apply(variables, images, train=False, method="features")
        return model.apply(variables, maps, train=False, method="predict")

    predictions = in_two_steps(variables, images)
    expected = evaluate(model)(variables, images)
    np.testing.assert_array_equal(predictions["logits"], expected["logits"])
    assert expected["logits"].dtype == jnp.float32


def test_evaluation_is_deterministic_and_one_image_does_not_see_another():
    model, images, variables = initialized()
    logits = evaluate(model)(variables, images)["logits"]
    again = evaluate(model)(variables, images)["logits"]
    np.testing.assert_array_equal(logits, again)
    alone = evaluate(model)(variables, images[:1])["logits"]
    np.testing.assert_allclose(alone, logits[:1], atol=1e-5)


def test_floating_images_mean_the_same_as_uint8():
    model, images, variables = initialized()
    np.testing.assert_allclose(
        evaluate(model)(variables, images.astype(np.float32))["logits"],
        evaluate(model)(variables, images)["logits"],
        atol=1e-5,
    )


def test_images_are_normalized_by_the_models_mean_and_std():
    model, images, variables = initialized()
    other = model.clone(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels = (images / 255 - model.mean) / model.std
    np.testing.assert_allclose(
        evaluate(other)(variables, pixels * 255)["logits"],
        evaluate(model)(variables, images)["logits"],
        atol=1e-4,
    )


def assert_finite_and_not_zero(tree):
    for path, leaf in jax.tree.leaves_with_path(tree):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.abs(leaf).max() > 0, path


def test_gradients_are_finite_and_reach_every_parameter():
    assert_finite_and_not_zero(gradients_of_one_batch()[0])


def test_gradients_are_finite_and_reach_every_parameter_of_vgg_and_flatten():
    vgg = VGG((1, 1, 1, 1, 1), batch_norm=False, width=4, levels=(2, 3))
    model, (images, labels) = small_model(vgg, "flatten"), batch()
    variables = random_variables(model, images)
    gradient = jax.jit(functools.partial(gradients, model))
    result = gradient(variables, images, labels)
    assert_finite_and_not_zero(result[0])


def test_bfloat16_agrees_with_float32():
    model, images, variables = initialized()
    model16 = small_model(dtype=jnp.bfloat16)
    expected = evaluate(model)(variables, images)["logits"]
    actual = evaluate(model16)(variables, images)["logits"]
    assert actual.dtype == jnp.float32
    assert np.abs(actual - expected).max() < 2e-2 * np.abs(expected).max()


def test_two_devices_with_synced_batch_norm_equal_one_large_batch():
    _, _, variables = initialized()
    synced = small_model(axis_name="data")
    parallel = jax.pmap(
        lambda v, x, y: jax.lax.pmean(gradients(synced, v, x, y), "data"),
        axis_name="data",
        in_axes=(None, 0, 0),
        devices=jax.devices()[:2],
    )
    halves = (x.reshape(2, -1, *x.shape[1:]) for x in batch())
    two, one = parallel(variables, *halves), gradients_of_one_batch()
    for (path, expected), actual in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(two), strict=True
    ):
        tolerance = 1e-4 * np.abs(expected).max() + 1e-6
        for replica in np.asarray(actual):
            assert np.abs(replica - expected).max() <= tolerance, path


@functools.cache
def over_copies(num_scales):
    neck = necks.build("image_pyramid", num_scales=num_scales)
    head = heads.build("pool", num_classes=2)
    model, (images, _) = PyramidModel(small_resnet((3,)), neck, head), batch()
    return model, images, random_variables(model, images)


@pytest.mark.parametrize("num_scales", [1, 2])
def test_image_pyramid_is_one_backbone_over_every_copy(num_scales):
    model, images, variables = over_copies(num_scales)
    assert set(variables["params"]["backbone"]) == {"stem", "stage1", "stage2"}

    @jax.jit
    def features(variables, images):
        return model.apply(variables, images, train=False, method="features")

    @jax.jit
    def alone(variables, images):
        parts = {key: tree["backbone"] for key, tree in variables.items()}
        pixels = gaussian_pyramid(normalize(images, model.mean, model.std), num_scales)
        return [model.backbone.apply(parts, x, train=False)[3] for x in pixels.values()]

    actual, expected = features(variables, images), alone(variables, images)
    assert list(actual) == list(range(3, 3 + num_scales))
    for x, y in zip(actual.values(), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_every_copy_of_an_image_pyramid_updates_the_statistics():
    model, images, variables = over_copies(2)
    parameters = {"params": variables["params"]["backbone"]}

    @jax.jit
    def train(variables, images):
        updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return updated[1]["batch_stats"]["backbone"]

    @jax.jit
    def one_after_the_other(statistics, images):
        pixels = gaussian_pyramid(normalize(images, model.mean, model.std), 2)
        for x in pixels.values():
            _, statistics = model.backbone.apply(
                parameters | statistics, x, train=True, mutable=["batch_stats"]
            )
        return statistics["batch_stats"]

    actual = train(variables, images)
    before = {"batch_stats": variables["batch_stats"]["backbone"]}
    expected = one_after_the_other(before, images)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
        actual,
        expected,
    )


def test_frozen_norm_uses_and_keeps_the_backbones_statistics():
    model, (images, _) = small_model(), batch()
    neck = necks.build("fpn", width=8, norm="batch")
    model = model.clone(neck=neck, frozen_norm=True)
    variables = random_variables(model, images)

    @jax.jit
    def train(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    @jax.jit
    def by_parts(variables, images):
        def part(name):
            return {key: tree.get(name, {}) for key, tree in variables.items()}

        pixels = normalize(images, model.mean, model.std)
        maps = model.backbone.apply(part("backbone"), pixels, train=False)
        maps, _ = neck.apply(part("neck"), maps, train=True, mutable=["batch_stats"])
        return model.head.apply(part("head"), maps, train=True)

    predictions, updated = train(variables, images)
    expected = by_parts(variables, images)["logits"]
    np.testing.assert_allclose(predictions["logits"], expected, rtol=1e-4, atol=1e-4)
    assert set(updated["batch_stats"]) == {"backbone", "neck"}
    for part, statistics in updated["batch_stats"].items():
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max() > 0,
            statistics,
            variables["batch_stats"][part],
        )
        assert set(jax.tree.leaves(moved)) == {part == "neck"}


@pytest.mark.parametrize("shape", [(17, 21, 3), (1, 17, 21, 4), (1, 17, 21, 1)])
def test_other_shapes_are_refused(shape):
    model, _, variables = initialized()
    with pytest.raises(ValueError, match=r"it must be \[B, H, W, 3\]"):
        model.apply(variables, np.zeros(shape, np.uint8), train=False)


def test_an_image_must_fill_a_cell_of_the_coarsest_level():
    check_image_size((32, 33), (2, 3, 4, 5))
    with pytest.raises(InputError, match=r"31 × 64 is too small for level 5.* 32 pix"):
        check_image_size((31, 64), (2, 3, 4, 5))
    check_image_size((125, 130), (2, 5), num_scales=3)
    with pytest.raises(
        InputError, match=r"124 .* level 5 of the smallest of 3 scales; .* 125 pixels"
    ):
        check_image_size((124, 130), (2, 5), num_scales=3)
    model, _, variables = initialized()
    with pytest.raises(InputError, match="7 × 9 is too small for level 3"):
        model.apply(variables, np.zeros((1, 7, 9, 3), np.uint8), train=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mean": (0.5,)}, "mean is"),
        ({"std": (0.2, 0.2)}, "std is"),
        ({"std": (0.2, 0.0, 0.2)}, "std is"),
        ({"neck": necks.FPN(levels=(2, 4))}, r"needs levels \(2, 4\)"),
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
