"""Localization: `Pc, bx, by, bh, bw, c1…cK`; where the losses count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.tasks import Localization
from fpn_jax.tasks.localization import BOX_LOSSES

SIZE = (40, 80)
"""Height and width; not equal, so that a swap would show."""
BOXES = np.array([[8, 4, 40, 24], [0, 0, 0, 0], [16, 10, 80, 40]], np.float32)
LABELS = np.array([[1], [-1], [0]], np.int32)
THERE = np.array([True, False, True])


def batch(**changes):
    made = {
        "image": np.zeros((3, *SIZE, 3), np.uint8),
        "boxes": BOXES[:, None],
        "box_labels": LABELS,
        "weight": np.ones(3, np.float32),
    }
    return made | changes


def predictions(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "object_logit": rng.normal(size=3).astype(np.float32),
        "box": rng.uniform(0.2, 0.6, (3, 4)).astype(np.float32),
        "class_logits": rng.normal(size=(3, 2)).astype(np.float32),
    }


def shares(box):
    """Returns bx, by, bh, bw of a box in pixels."""
    (height, width), (x0, y0, x1, y1) = SIZE, box
    return (
        (x0 + x1) / 2 / width,
        (y0 + y1) / 2 / height,
        (y1 - y0) / height,
        (x1 - x0) / width,
    )


def perfect():
    found = predictions()
    found["box"] = np.array([shares(box) for box in BOXES], np.float32)
    found["object_logit"] = np.where(THERE, 20, -20).astype(np.float32)
    found["class_logits"] = (
        40 * np.eye(2, dtype=np.float32)[np.maximum(LABELS[:, 0], 0)]
    )
    return found


@pytest.mark.parametrize("box_loss", ["l1", "l2"])
def test_losses_are_those_of_a_loop(box_loss):
    found, made = predictions(), batch()
    task = Localization(2, box_loss, box_weight=3.0, class_weight=0.5)
    losses = task.losses(found, made)
    for row, there in enumerate(THERE):
        p = 1 / (1 + np.exp(-found["object_logit"][row].astype(np.float64)))
        expected = -np.log(p if there else 1 - p)
        np.testing.assert_allclose(losses["object"][row], expected, rtol=1e-5)
        if not there:
            assert losses["box"][row] == losses["class"][row] == 0
            continue
        difference = found["box"][row] - np.array(shares(BOXES[row]))
        power = 1 if box_loss == "l1" else 2
        expected = 3 * (np.abs(difference) ** power).sum()
        np.testing.assert_allclose(losses["box"][row], expected, rtol=1e-5)
        scores = found["class_logits"][row].astype(np.float64)
        expected = 0.5 * (np.log(np.exp(scores).sum()) - scores[LABELS[row, 0]])
        np.testing.assert_allclose(losses["class"][row], expected, rtol=1e-5)


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_nan_targets_without_an_object_leave_loss_and_gradient_finite(box_loss):
    boxes = BOXES[:, None].copy()
    boxes[1] = np.nan
    task = Localization(2, box_loss)

    def total(found):
        losses = task.losses(found, batch(boxes=boxes))
        return sum(loss.sum() for loss in losses.values())

    value, gradients = jax.value_and_grad(total)(predictions())
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert not np.any(gradients["box"][1])
    assert not np.any(gradients["class_logits"][1])
    assert np.any(gradients["box"][0])
    assert np.any(gradients["object_logit"][1])


def test_the_truth_as_prediction_scores_1_and_costs_nothing():
    task = Localization(2)
    scores = {
        name: metric.on_host().compute()
        for name, metric in task.metrics(perfect(), batch()).items()
    }
    assert scores.pop("loss") < 1e-4
    np.testing.assert_allclose(list(scores.values()), 1, rtol=1e-6)
    assert set(scores) | {"loss"} == set(task.definitions)


def test_an_image_without_an_object_counts_only_for_the_decision():
    task, made = Localization(2), batch(weight=np.array([0, 1, 0], np.float32))
    scores = {
        name: metric.on_host().compute()
        for name, metric in task.metrics(predictions(), made).items()
    }
    assert np.isnan(scores["box_iou"])
    assert np.isnan(scores["class_accuracy"])
    assert scores["object_accuracy"] in (0, 1)


def test_answers_are_in_pixels_and_inside_of_the_image():
    answer = Localization(2).decode(perfect(), SIZE)
    np.testing.assert_allclose(answer["boxes"][:, 0][THERE], BOXES[THERE], atol=1e-4)
    assert answer["box_labels"][:, 0].tolist() == [1, -1, 0]
    wide = predictions() | {"box": np.full((3, 4), 2.0, np.float32)}
    boxes = Localization(2).decode(wide, SIZE)["boxes"]
    assert boxes.min() >= 0
    assert (boxes <= np.array([80, 40, 80, 40])).all()


def test_the_threshold_decides_what_is_reported():
    found = predictions() | {"object_logit": jnp.log(jnp.array([3.0, 3.0, 3.0]))}
    labels = [
        Localization(2, threshold=threshold).decode(found, SIZE)["box_labels"]
        for threshold in (0.7, 0.8)
    ]
    assert (labels[0] >= 0).all()
    assert (labels[1] == -1).all()


def test_rows_say_what_was_there_and_what_was_found():
    task = Localization(2)
    rows = task.keep(task.decode(perfect(), SIZE), batch())
    assert rows["there"].tolist() == THERE.tolist()
    np.testing.assert_allclose(rows["iou"][THERE], 1, rtol=1e-5)
    assert rows["label"].tolist() == rows["predicted"].tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"box_loss": "giou2"}, "'giou2' is unknown; did you mean 'giou'"),
        ({"box_weight": -1.0}, "task.box_weight is -1.0; it must be"),
        ({"threshold": 1.5}, "task.threshold is 1.5; it must be in"),
        ({"num_classes": 0}, "num_classes is 0; it must be a whole number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        Localization(**({"num_classes": 2} | arguments))
