"""Segmentation: losses, metrics, answers, and the pixels that are ignored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.data import records
from fpn_jax.errors import InputError
from fpn_jax.metrics.sums import Metric
from fpn_jax.ops import pixel_losses
from fpn_jax.tasks import Segmentation
from fpn_jax.train import parallel, steps

CLASSES, SIZE = 3, (12, 16)


def batch(seed=0, count=4, ignored=0.2):
    rng = np.random.default_rng(seed)
    mask = rng.integers(CLASSES, size=(count, *SIZE)).astype(np.uint8)
    mask[rng.random(mask.shape) < ignored] = 255
    return {"mask": mask, "weight": np.ones(count, np.float32)}


def logits(seed=0, count=4, size=SIZE):
    rng = np.random.default_rng(seed + 100)
    values = rng.normal(0, 2, (count, *size, CLASSES)).astype(np.float32)
    return {"mask_logits": values}


def computed(metrics):
    return {name: metric.on_host().compute() for name, metric in metrics.items()}


def test_the_true_mask_as_prediction_scores_1():
    made = batch()
    true = np.where(made["mask"] == 255, 0, made["mask"])
    sure = 60 * np.eye(CLASSES, dtype=np.float32)[true]
    scores = computed(Segmentation(CLASSES).metrics({"mask_logits": sure}, made))
    assert scores.pop("class_iou") == [1.0] * CLASSES
    assert scores.pop("loss") < 1e-4
    assert set(scores.values()) == {1.0}


def test_metrics_are_those_of_a_loop_over_images():
    made, found = batch(), logits()
    scores = computed(Segmentation(CLASSES).metrics(found, made))
    predicted = found["mask_logits"].argmax(-1)
    counted = made["mask"] != 255
    right = (predicted == made["mask"])[counted].mean()
    np.testing.assert_allclose(scores["pixel_accuracy"], right, rtol=1e-6)
    ious = []
    for guess, truth, where in zip(predicted, made["mask"], counted, strict=True):
        guess, truth = (guess > 0) & where, (truth > 0) & where
        ious.append((guess & truth).sum() / (guess | truth).sum())
    mean = scores["foreground_iou_per_image"]
    np.testing.assert_allclose(mean, np.mean(ious), rtol=1e-6)
    guess, truth = (predicted > 0) & counted, (made["mask"] > 0) & counted
    iou = (guess & truth).sum() / (guess | truth).sum()
    np.testing.assert_allclose(scores["foreground_iou"], iou, rtol=1e-6)


def test_the_ignored_value_is_that_of_a_record():
    assert pixel_losses.IGNORE == records.IGNORE == records.FIELDS["mask"].padding


def test_every_metric_has_a_definition():
    metrics = Segmentation(CLASSES).metrics(logits(), batch())
    assert set(metrics) == set(Segmentation.definitions)
    assert all(isinstance(metric, Metric) for metric in metrics.values())


@pytest.mark.parametrize("weights", [{"cross_entropy": 1.0}, {"dice": 1, "lovasz": 2}])
def test_predictions_at_ignored_pixels_change_no_loss_gradient_metric_or_row(weights):
    task, made, found = Segmentation(CLASSES, weights), batch(), logits()["mask_logits"]
    noise = np.random.default_rng(5).normal(0, 9, found.shape).astype(np.float32)
    other = np.where((made["mask"] == 255)[..., None], noise, found)

    def trained(x):
        return sum(
            loss.sum() for loss in task.losses({"mask_logits": x}, made).values()
        )

    for one, two in zip(
        jax.value_and_grad(trained)(found),
        jax.value_and_grad(trained)(other),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, atol=1e-6)
    before, after = (
        computed(task.metrics({"mask_logits": x}, made)) for x in (found, other)
    )
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6, err_msg=name)
    rows = [
        task.keep(task.decode({"mask_logits": x}, SIZE), made) for x in (found, other)
    ]
    jax.tree.map(np.testing.assert_array_equal, *rows)


def test_an_empty_prediction_of_an_empty_truth_is_right():
    made = {"mask": np.zeros((1, *SIZE), np.uint8), "weight": np.ones(1, np.float32)}
    nothing = np.zeros((1, *SIZE, CLASSES), np.float32)
    nothing[..., 0] = 9
    scores = computed(Segmentation(CLASSES).metrics({"mask_logits": nothing}, made))
    assert scores["foreground_iou"] == scores["foreground_iou_per_image"] == 1
    assert scores["boundary_iou"] == scores["mean_iou"] == 1


def test_padding_does_not_count():
    made, found = batch(), logits()
    task = Segmentation(CLASSES)
    whole = computed(task.metrics(found, made))
    padded = {key: np.concatenate([value, value]) for key, value in made.items()}
    padded["weight"][4:] = 0
    other = {
        "mask_logits": np.concatenate([found["mask_logits"], logits(7)["mask_logits"]])
    }
    for name, value in computed(task.metrics(other, padded)).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6, err_msg=name)


def test_logits_of_a_smaller_map_are_resized_before_the_loss():
    task, made = Segmentation(CLASSES), batch()
    small = logits(size=(3, 4))
    resized = jax.image.resize(
        small["mask_logits"], (4, *SIZE, CLASSES), "linear", antialias=False
    )
    expected = task.losses({"mask_logits": resized}, made)["cross_entropy"]
    found = task.losses(small, made)["cross_entropy"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    answer = task.decode(small, SIZE)
    np.testing.assert_array_equal(answer["mask"], jnp.argmax(resized, -1))
    np.testing.assert_allclose(answer["mask_probabilities"].sum(-1), 1, rtol=1e-5)


def test_losses_are_weighted_and_the_auxiliary_one_is_added():
    made = batch()
    plain = Segmentation(CLASSES, {"dice": 1.0, "focal": 1.0}).losses(logits(), made)
    task = Segmentation(CLASSES, {"dice": 3.0, "focal": 0.0}, auxiliary_weight=0.4)
    assert task.reads == {"mask_logits", "auxiliary_logits"}
    found = logits() | {"auxiliary_logits": logits(3, size=(6, 8))["mask_logits"]}
    losses = task.losses(found, made)
    assert set(losses) == {"dice", "auxiliary"}
    np.testing.assert_allclose(losses["dice"], 3 * plain["dice"], rtol=1e-6)
    alone = Segmentation(CLASSES).losses(
        {"mask_logits": found["auxiliary_logits"]}, made
    )
    np.testing.assert_allclose(
        losses["auxiliary"], 0.4 * alone["cross_entropy"], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"loss_weights": {"dise": 1.0}}, "'dise' is unknown; did you mean 'dice'"),
        (
            {"loss_weights": {"dice": -1.0}},
            "task.loss_weights.dice is -1.0; it must be",
        ),
        ({"loss_weights": {"dice": 0.0}}, "give at least one weight above 0"),
        ({"auxiliary_weight": -1.0}, "task.auxiliary_weight is -1.0; it must be"),
        ({"num_mask_classes": 256}, "num_mask_classes is 256; it must be in"),
        ({"num_mask_classes": 1}, "num_mask_classes is 1; it must be a whole number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        Segmentation(**({"num_mask_classes": CLASSES} | arguments))


def test_the_sums_over_devices_are_exactly_those_of_one_device():
    """Every image is on a device of its own; two of them are padding."""
    devices = jax.local_device_count()
    made, found = batch(count=devices), logits(count=devices)["mask_logits"]
    made["weight"][-2:] = 0
    task = Segmentation(CLASSES)
    step = steps.make_eval_step(
        lambda variables, images, train: {"mask_logits": images},
        task.metrics,
        lambda predictions, batch: task.keep(task.decode(predictions, SIZE), batch),
    )
    sharded = parallel.shard(made | {"image": found})
    metrics, rows = parallel.map_eval_step(step)({}, sharded)
    alone = task.metrics({"mask_logits": found}, made)
    for name, value in computed(alone).items():
        exact = name not in ("loss", "foreground_iou_per_image")
        ours = metrics[name].on_host().compute()
        np.testing.assert_allclose(ours, value, rtol=0 if exact else 1e-6, err_msg=name)
    together = task.keep(task.decode({"mask_logits": found}, SIZE), made)
    for name, value in together.items():
        np.testing.assert_array_equal(rows[name].reshape(value.shape), value)
