"""The losses of YOLO against a loop, and the way back from answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import boxes as box_ops
from fpn_jax.ops import grid
from fpn_jax.tasks.grid import GridDetection
from tests.tasks.test_fcos import BATCH, CLASSES, SIZE, batch

LEVEL, CELLS = 4, (4, 6)
ANCHORS = ((12.0, 12.0), (30.0, 40.0), (90.0, 60.0))


def task(**changes):
    return GridDetection(CLASSES, anchors=ANCHORS, **changes)


def predictions(count=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, *CELLS, len(ANCHORS))
    made = {
        "grid_boxes": rng.normal(0, 0.5, (*shape, 4)),
        "object_logits": rng.normal(-1, 1, shape),
        "class_logits": rng.normal(0, 1, (*shape, CLASSES)),
    }
    return {key: {LEVEL: jnp.asarray(x, jnp.float32)} for key, x in made.items()}


def total(found, data, **changes):
    return sum(loss.sum() for loss in task(**changes).losses(found, data).values())


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("rescore", [True, False])
def test_losses_are_those_of_a_loop(rescore):
    found = predictions()
    losses = task(rescore=rescore).losses(found, BATCH)
    numbers = np.asarray(found["grid_boxes"][LEVEL]).reshape(3, -1, 4)
    objects = np.asarray(found["object_logits"][LEVEL]).reshape(3, -1)
    logits = np.asarray(found["class_logits"][LEVEL]).reshape(3, -1, CLASSES)
    for row in range(3):
        there = BATCH["box_labels"][row] >= 0
        boxes, labels = BATCH["boxes"][row][there], BATCH["box_labels"][row][there]
        expected = dict.fromkeys(("coordinates", "object", "background", "class"), 0.0)
        decoded = grid.decode(jnp.array(numbers[row]), CELLS, jnp.array(ANCHORS), 16.0)
        overlap = np.array(
            [np.asarray(box_ops.iou(decoded, jnp.array(box))) for box in boxes]
        ).reshape(len(boxes), numbers.shape[1])
        owners = {}
        for number, (x0, y0, x1, y1) in enumerate(boxes):
            column, line = int((x0 + x1) / 32), int((y0 + y1) / 32)
            shapes = np.array(ANCHORS)
            both = np.minimum(shapes, (x1 - x0, y1 - y0)).prod(1)
            union = shapes.prod(1) + (x1 - x0) * (y1 - y0) - both
            kind = int((both / union).argmax())
            place = (line * CELLS[1] + column) * 3 + kind
            owners[place] = number
            t = numbers[row, place]
            expected["coordinates"] += (
                (sigmoid(t[0]) - ((x0 + x1) / 32 - column)) ** 2
                + (sigmoid(t[1]) - ((y0 + y1) / 32 - line)) ** 2
                + (t[2] - np.log((x1 - x0) / ANCHORS[kind][0])) ** 2
                + (t[3] - np.log((y1 - y0) / ANCHORS[kind][1])) ** 2
            )
            goal = overlap[number, place] if rescore else 1.0
            expected["object"] += 5 * (goal - sigmoid(objects[row, place])) ** 2
            z = logits[row, place]
            expected["class"] += np.log(np.exp(z).sum()) - z[labels[number]]
        for place in range(numbers.shape[1]):
            near = len(boxes) and overlap[:, place].max() > 0.6
            if place not in owners and not near:
                expected["background"] += sigmoid(objects[row, place]) ** 2
        for name, value in expected.items():
            wanted = value / max(len(boxes), 1)
            np.testing.assert_allclose(losses[name][row], wanted, rtol=1e-4, atol=1e-6)


def test_gradients_are_finite_whatever_padding_holds():
    tiny = batch([[(5, 5, 6, 6)]] * 3, [[0]] * 3)
    for data in (BATCH, batch([[], [], []], [[], [], []]), tiny):
        gradients = jax.grad(total)(predictions(), data)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


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


def test_a_predictor_whose_box_overlaps_a_crowd_is_not_punished():
    data = batch([[(0, 0, 96, 64)]], [[1]], [[True]])
    gradient = jax.grad(total)(predictions(1), data)
    assert not np.any(gradient["object_logits"][LEVEL])
    assert not np.any(gradient["grid_boxes"][LEVEL])


def test_of_two_objects_for_one_predictor_the_larger_one_is_learned():
    boxes = [(8, 8, 38, 48), (10, 9, 36, 46)]
    both = batch([boxes], [[1, 2]])
    one = batch([boxes[:1]], [[1]])
    found = predictions(1)
    pair, alone = task().losses(found, both), task().losses(found, one)
    np.testing.assert_allclose(2 * pair["class"], alone["class"], rtol=1e-6)
    np.testing.assert_allclose(2 * pair["coordinates"], alone["coordinates"], rtol=1e-6)


def test_perfect_predictions_are_decoded_to_the_truth():
    found = jax.tree.map(lambda x: x * 0 - 20, predictions())
    for row in range(3):
        there = BATCH["box_labels"][row] >= 0
        boxes = BATCH["boxes"][row][there]
        if not len(boxes):
            continue
        shapes = jnp.array(ANCHORS)
        place, wins = grid.assign(
            jnp.array(boxes), np.ones(len(boxes), bool), shapes, CELLS, 16.0
        )
        assert wins.all()
        target = np.asarray(grid.encode(jnp.array(boxes), place, CELLS, shapes, 16.0))
        share = np.clip(target[:, :2], 1e-6, 1 - 1e-6)
        target = np.concatenate([np.log(share / (1 - share)), target[:, 2:]], 1)
        for number, label in enumerate(BATCH["box_labels"][row][there]):
            at = (row, *np.unravel_index(int(place[number]), (*CELLS, 3)))
            for name, value in (
                ("grid_boxes", target[number]),
                ("object_logits", 20.0),
                ("class_logits", 40 * np.eye(CLASSES)[label] - 20),
            ):
                found[name][LEVEL] = found[name][LEVEL].at[at].set(value)
    answer = task().decode(found, SIZE)
    for row in range(3):
        true = BATCH["box_labels"][row] >= 0
        labels = np.asarray(answer["box_labels"][row])
        assert sorted(labels[labels >= 0]) == sorted(BATCH["box_labels"][row][true])
        for box, label in zip(
            BATCH["boxes"][row][true], BATCH["box_labels"][row][true], strict=True
        ):
            near = np.asarray(answer["boxes"][row])[labels == label]
            np.testing.assert_allclose(near[0], box, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"anchors": ()}, r"task.anchors are \(\); give pairs"),
        ({"anchors": ((1, 2, 3),)}, "task.anchors are .*; give pairs"),
        ({"anchors": ((0, 2),)}, "a side of task.anchors is 0"),
        ({"ignore": 2.0}, "task.ignore is 2.0"),
        ({"object_weight": -1.0}, "task.object_weight is -1.0"),
    ],
)
def test_bad_values_are_named(changes, text):
    with pytest.raises(InputError, match=text):
        GridDetection(CLASSES, **changes)
