"""RetinaNet: what counts in its losses, and the way back from answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import boxes as box_ops
from fpn_jax.tasks.retinanet import BOX_LOSSES, RetinaNetDetection
from tests.tasks.test_fcos import BATCH, CLASSES, LEVELS, SIZE, batch

ANCHORS = 6


def task(**changes):
    given = {"octaves": 2, "anchor_scale": 3.0} | changes
    return RetinaNetDetection(CLASSES, **given)


def predictions(count=3, seed=0):
    rng = np.random.default_rng(seed)
    made = {"class_logits": {}, "box_deltas": {}}
    for level, size in LEVELS.items():
        shape = (count, *size, ANCHORS)
        made["class_logits"][level] = rng.normal(-2, 1, (*shape, CLASSES))
        made["box_deltas"][level] = rng.normal(0, 0.3, (*shape, 4))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), made)


def total(found, data, **changes):
    return sum(loss.sum() for loss in task(**changes).losses(found, data).values())


def all_anchors(made):
    return np.concatenate([made.anchors(level, size) for level, size in LEVELS.items()])


def flat(levels, end):
    return np.concatenate(
        [np.reshape(x, (len(x), -1, end)) for x in levels.values()], 1
    )


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_losses_are_those_of_a_loop(box_loss):
    made, found = task(box_loss=box_loss), predictions()
    losses = made.losses(found, BATCH)
    anchors = all_anchors(made)
    logits = flat(found["class_logits"], CLASSES)
    deltas = flat(found["box_deltas"], 4)
    for row in range(3):
        there = BATCH["box_labels"][row] >= 0
        boxes, labels = BATCH["boxes"][row][there], BATCH["box_labels"][row][there]
        expected, positives = {"class": 0.0, "box": 0.0}, 0
        overlap = np.zeros((len(boxes), len(anchors)))
        for i, box in enumerate(boxes):
            overlap[i] = box_ops.iou(jnp.array(box), jnp.array(anchors))
        best = overlap.max(1, keepdims=True)
        for number, anchor in enumerate(anchors):
            iou = overlap[:, number]
            keeps = (overlap == best)[:, number] & (best[:, 0] > 0)
            kind = int(iou.argmax()) if len(boxes) and iou.max() >= 0.5 else None
            if kind is None and keeps.any():
                kind = int(iou.argmax())
            if kind is None and len(boxes) and iou.max() >= 0.4:
                continue
            wanted = np.zeros(CLASSES)
            if kind is not None:
                wanted[labels[kind]] = 1
                positives += 1
                target = box_ops.encode(jnp.array(boxes[kind]), jnp.array(anchor))
                error = deltas[row, number] - np.asarray(target)
                if box_loss == "giou":
                    decoded = box_ops.decode(
                        jnp.array(deltas[row, number]), jnp.array(anchor)
                    )
                    value = 1 - box_ops.giou(decoded, jnp.array(boxes[kind]))
                elif box_loss == "l1":
                    value = np.abs(error).sum()
                else:
                    small = np.abs(error) < 0.1
                    value = np.where(small, error**2 / 0.2, np.abs(error) - 0.05).sum()
                expected["box"] += float(value)
            expected["class"] += float(
                optax.sigmoid_focal_loss(
                    jnp.array(logits[row, number]), wanted, alpha=0.25, gamma=2
                ).sum()
            )
        for name, value in expected.items():
            wanted = value / max(positives, 1)
            np.testing.assert_allclose(losses[name][row], wanted, rtol=1e-4, atol=1e-6)
        assert (positives > 0) == bool(there.any())


def test_anchors_have_their_sizes_ratios_and_places():
    made = RetinaNetDetection(1, offset=0.0, rounded=True)
    shapes = made.shapes(3)
    assert shapes.shape == (9, 4)
    np.testing.assert_array_equal(shapes[3:6, 2] * 2, [32, 40, 50])
    np.testing.assert_array_equal(shapes[0], [-23, -11, 23, 11])
    exact = RetinaNetDetection(1).shapes(3)
    sides = exact[:, 2:] - exact[:, :2]
    np.testing.assert_allclose(np.sqrt(sides.prod(1))[:3], 32 * 2 ** (np.arange(3) / 3))
    np.testing.assert_allclose(sides[0, 1] / sides[0, 0], 0.5, rtol=1e-6)
    centred = task(cell_offset={3: (0.5, 1.5)}).anchors(3, (2, 2)).reshape(2, 2, 6, 4)
    middle = (centred[..., :2] + centred[..., 2:]) / 2
    np.testing.assert_allclose(middle[1, 0], [[1.5, 8.5]] * 6, atol=1e-5)
    assert made.head_arguments() == {"num_classes": 1, "num_anchors": 9}


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_gradients_are_finite_whatever_padding_holds(box_loss):
    for data in (BATCH, batch([[], [], []], [[], [], []])):
        gradients = jax.grad(total)(predictions(), data, box_loss=box_loss)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    tiny = batch([[(5, 5, 6, 6)]], [[0]])
    gradients = jax.grad(total)(predictions(1), tiny, box_loss=box_loss)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    # The box of one pixel keeps its best anchors.
    assert any(np.any(g) for g in gradients["box_deltas"].values())
    alone = jax.grad(total)(predictions(1), tiny, keep_best=False)
    assert not any(np.any(g) for g in alone["box_deltas"].values())


def test_an_example_does_not_depend_on_the_others():
    found = predictions()
    together = task().losses(found, BATCH)
    for row in range(3):
        alone = task().losses(
            jax.tree.map(lambda x, row=row: x[row : row + 1], found),
            {key: value[row : row + 1] for key, value in BATCH.items()},
        )
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][row], rtol=1e-6)


def test_what_lies_in_a_crowd_counts_in_no_loss():
    data = batch([[(0, 0, 48, 64)]], [[1]], [[True]])
    gradients = jax.grad(total)(predictions(1), data)
    for level, (_, width) in LEVELS.items():
        inside = (np.arange(width) + 0.5) * 2**level < 48
        gradient = np.asarray(gradients["class_logits"][level])[0]
        assert not gradient[:, inside].any()
        assert gradient[:, ~inside].all()
        assert not np.any(gradients["box_deltas"][level])


def test_perfect_predictions_are_decoded_to_the_truth():
    made, found = task(), predictions()
    found = jax.tree.map(lambda x: x * 0 - 20, found)
    for row in range(3):
        for box, label in zip(
            BATCH["boxes"][row], BATCH["box_labels"][row], strict=True
        ):
            if label < 0:
                continue
            overlap = {
                level: np.asarray(
                    box_ops.iou(jnp.array(box), jnp.array(made.anchors(level, size)))
                )
                for level, size in LEVELS.items()
            }
            level = max(overlap, key=lambda k: overlap[k].max())
            number = int(overlap[level].argmax())
            place = np.unravel_index(number, (*LEVELS[level], ANCHORS))
            anchor = made.anchors(level, LEVELS[level])[number]
            target = box_ops.encode(jnp.array(box), jnp.array(anchor))
            logits, deltas = found["class_logits"], found["box_deltas"]
            logits[level] = logits[level].at[(row, *place, label)].set(9)
            deltas[level] = deltas[level].at[(row, *place)].set(target)
    answer = made.decode(found, SIZE)
    for row in range(3):
        true = BATCH["box_labels"][row] >= 0
        labels = np.asarray(answer["box_labels"][row])
        assert sorted(labels[labels >= 0]) == sorted(BATCH["box_labels"][row][true])
        for box, label in zip(
            BATCH["boxes"][row][true], BATCH["box_labels"][row][true], strict=True
        ):
            near = np.asarray(answer["boxes"][row])[labels == label]
            np.testing.assert_allclose(near[0], box, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"anchor_scale": 0}, "task.anchor_scale is 0"),
        ({"octaves": 0}, "task.octaves is 0"),
        ({"ratios": ()}, r"task.ratios are \(\)"),
        ({"ratios": (1.0, -1.0)}, "one of task.ratios is -1.0"),
        ({"low": 0.6}, r"task.low is 0.6; it must be in \[0, 0.5\]"),
        ({"box_loss": "iou"}, "task.box_loss 'iou' is unknown"),
    ],
)
def test_bad_values_are_named(changes, text):
    with pytest.raises(InputError, match=text):
        task(**changes)
