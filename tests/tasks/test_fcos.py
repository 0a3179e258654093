"""FCOS: losses against a loop, what counts in none, and the way back from answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import fcos as ops
from fpn_jax.tasks.fcos import FCOSDetection

SIZE = (64, 96)
"""Height and width; not equal, so that a swap would show."""
LEVELS = {3: (8, 12), 4: (4, 6), 5: (2, 3)}
CLASSES, MOST = 3, 4


def task(**changes):
    return FCOSDetection(CLASSES, level_range=4.0, **changes)


def batch(boxes, labels, crowd=None):
    """Returns a batch with padding that is NaN."""
    made = np.full((len(boxes), MOST, 4), np.nan, np.float32)
    kinds = np.full((len(boxes), MOST), -1, np.int32)
    group = np.zeros((len(boxes), MOST), np.int32)
    for row, (some, names) in enumerate(zip(boxes, labels, strict=True)):
        made[row, : len(some)] = np.reshape(some, (-1, 4))
        kinds[row, : len(names)] = names
        if crowd is not None:
            group[row, : len(crowd[row])] = crowd[row]
    return {
        "image": np.zeros((len(boxes), *SIZE, 3), np.uint8),
        "weight": np.ones(len(boxes), np.float32),
        "boxes": made,
        "box_labels": kinds,
        "box_crowd": group,
    }


BATCH = batch(
    [[(8, 8, 40, 44), (50, 10, 62, 20)], [], [(0, 0, 96, 64)]],
    [[1, 2], [], [0]],
)


def predictions(count=3, seed=0):
    rng = np.random.default_rng(seed)
    made = {"class_logits": {}, "distances": {}, "centerness_logits": {}}
    for level, size in LEVELS.items():
        shape = (count, *size)
        made["class_logits"][level] = rng.normal(-2, 1, (*shape, CLASSES))
        made["distances"][level] = 2**level * rng.uniform(0.5, 4, (*shape, 4))
        made["centerness_logits"][level] = rng.normal(size=shape)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), made)


def perfect(data):
    """Returns predictions that give every location its box."""
    made = predictions(len(data["boxes"]))
    for level, size in LEVELS.items():
        places = np.asarray(ops.locations(size, 2**level, (2 ** (level - 1),) * 2))
        low, high = {3: (0, 32), 4: (32, 64), 5: (64, np.inf)}[level]
        for row, (boxes, labels) in enumerate(
            zip(data["boxes"], data["box_labels"], strict=True)
        ):
            logits = np.full((len(places), CLASSES), -20.0)
            sides, centre = np.full((len(places), 4), 1.0), np.full(len(places), -20.0)
            for box, label in zip(boxes, labels, strict=True):
                own = np.asarray(ops.distances(jnp.array(places), jnp.array(box)))
                middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
                near = np.abs(places - middle).max(1) < 1.5 * 2**level
                mine = (own.min(1) > 0) & near & (label >= 0)
                mine &= (own.max(1) > low) & (own.max(1) < high)
                logits[mine, label] = 20
                sides[mine] = own[mine]
                weight = np.asarray(ops.centerness(jnp.array(own[mine])))
                centre[mine] = np.log(weight / np.maximum(1 - weight, 1e-6))
            for name, value in (
                ("class_logits", logits),
                ("distances", sides),
                ("centerness_logits", centre),
            ):
                shape = made[name][level].shape[1:]
                made[name][level] = made[name][level].at[row].set(value.reshape(shape))
    return made


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def expected_losses(found, data, row):
    """Returns the three losses of an image, by loops over cells and boxes."""
    total = dict.fromkeys(("class", "box", "centerness"), 0.0)
    positives = 0
    for level, (height, width) in LEVELS.items():
        low, high = {3: (0, 32), 4: (32, 64), 5: (64, np.inf)}[level]
        stride = 2**level
        for y in range(height):
            for x in range(width):
                px, py = (x + 0.5) * stride, (y + 0.5) * stride
                best, area = None, np.inf
                for number, box in enumerate(data["boxes"][row]):
                    if data["box_labels"][row][number] < 0:
                        continue
                    x0, y0, x1, y1 = map(float, box)
                    sides = np.array([px - x0, py - y0, x1 - px, y1 - py])
                    off = max(abs(px - (x0 + x1) / 2), abs(py - (y0 + y1) / 2))
                    fits = sides.min() > 0 and low < sides.max() < high
                    own = (x1 - x0) * (y1 - y0)
                    if fits and off < 1.5 * stride and own < area:
                        best, area = (number, sides), own
                logits = np.asarray(found["class_logits"][level])[row, y, x]
                for label in range(CLASSES):
                    z = float(logits[label])
                    one = best and data["box_labels"][row][best[0]] == label
                    p = 1 / (1 + np.exp(-z))
                    total["class"] += (
                        -0.25 * (1 - p) ** 2 * log_sigmoid(z)
                        if one
                        else -0.75 * p**2 * log_sigmoid(-z)
                    )
                if best is None:
                    continue
                positives += 1
                a, b, c, d = map(
                    float, np.asarray(found["distances"][level])[row, y, x]
                )
                left, top, right, bottom = best[1]
                both = (min(a, left) + min(c, right)) * (min(b, top) + min(d, bottom))
                union = (a + c) * (b + d) + (left + right) * (top + bottom) - both
                hull = (max(a, left) + max(c, right)) * (max(b, top) + max(d, bottom))
                total["box"] += 1 - both / union + (hull - union) / hull
                share = min(left, right) / max(left, right)
                share *= min(top, bottom) / max(top, bottom)
                t = np.sqrt(share)
                z = float(np.asarray(found["centerness_logits"][level])[row, y, x])
                total["centerness"] -= t * log_sigmoid(z) + (1 - t) * log_sigmoid(-z)
    return {name: value / max(positives, 1) for name, value in total.items()}


def test_losses_are_those_of_a_loop():
    found = predictions()
    losses = task().losses(found, BATCH)
    for row in range(3):
        for name, value in expected_losses(found, BATCH, row).items():
            np.testing.assert_allclose(losses[name][row], value, rtol=2e-5, atol=1e-6)
    assert losses["box"][1] == losses["centerness"][1] == 0


def test_weights_multiply_their_losses():
    found = predictions()
    plain = task().losses(found, BATCH)
    weighed = task(box_weight=2.0, centerness_weight=0.0).losses(found, BATCH)
    np.testing.assert_allclose(weighed["box"], 2 * plain["box"], rtol=1e-6)
    assert not np.any(weighed["centerness"])


def test_gradients_are_finite_whatever_padding_holds():
    def total(found, data):
        return sum(loss.sum() for loss in task().losses(found, data).values())

    for data in (BATCH, batch([[], [], []], [[], [], []])):
        gradients = jax.grad(total)(predictions(), data)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_a_box_of_one_pixel_and_a_full_batch_are_finite():
    tiny = batch([[(5, 5, 6, 6)]], [[0]])
    losses = task().losses(predictions(1), tiny)
    assert all(np.isfinite(loss).all() for loss in losses.values())
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 64, (300, 2, 2)), axis=1).reshape(300, 4)
    many = batch([[]], [[]])
    many["boxes"] = corners[None].astype(np.float32)
    many["box_labels"] = rng.integers(0, CLASSES, (1, 300)).astype(np.int32)
    many["box_crowd"] = np.zeros((1, 300), np.int32)
    losses = task().losses(predictions(1), many)
    assert all(np.isfinite(loss).all() for loss in losses.values())


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


@pytest.mark.parametrize("how", ["crowd", "unknown class"])
def test_what_lies_in_an_ignored_box_counts_in_no_loss(how):
    boxes = [[(0, 0, 48, 64)]]
    data = batch(boxes, [[1 if how == "crowd" else -1]], [[how == "crowd"]])
    found = predictions(1)

    def total(found):
        return sum(loss.sum() for loss in task().losses(found, data).values())

    gradients = jax.grad(total)(found)
    for level, (_, width) in LEVELS.items():
        inside = (np.arange(width) + 0.5) * 2**level < 48
        gradient = np.asarray(gradients["class_logits"][level])[0]
        assert not gradient[:, inside].any()
        assert gradient[:, ~inside].all()
        assert not np.any(gradients["distances"][level])


def test_perfect_predictions_are_decoded_to_the_truth():
    answer = task().decode(perfect(BATCH), SIZE)
    for row in range(3):
        true = BATCH["box_labels"][row] >= 0
        found = answer["box_labels"][row] >= 0
        assert found.sum() == true.sum()
        labels = np.asarray(answer["box_labels"][row])[found]
        assert sorted(labels) == sorted(BATCH["box_labels"][row][true])
        for box, label in zip(
            BATCH["boxes"][row][true], BATCH["box_labels"][row][true], strict=True
        ):
            near = np.asarray(answer["boxes"][row])[found][labels == label]
            np.testing.assert_allclose(near[0], box, atol=1e-3)
    scores = np.asarray(answer["box_scores"])
    assert (np.diff(scores, axis=1) <= 0).all()
    assert not scores[1].any()


def test_a_detection_below_the_shown_threshold_is_kept_but_not_reported():
    found = predictions(1)
    answer = task(score_threshold=0.1, shown_threshold=0.4).decode(found, SIZE)
    scores, labels = np.asarray(answer["box_scores"]), np.asarray(answer["box_labels"])
    assert ((labels >= 0) == (scores >= 0.1)).all()
    assert (np.asarray(answer["box_shown"]) == (scores >= 0.4)).all()
    assert 0 < np.sum(answer["box_shown"]) < np.sum(labels >= 0)


def test_boxes_of_two_classes_suppress_each_other_unless_by_class():
    found = jax.tree.map(jnp.zeros_like, predictions(1))
    for level in LEVELS:
        found["class_logits"][level] -= 20
    found["class_logits"][4] = found["class_logits"][4].at[0, 1, 1, :2].set([3, 2])
    found["distances"][4] += 10
    one = task().decode(found, SIZE)
    two = task(by_class=True).decode(found, SIZE)
    assert one["box_labels"][0, :3].tolist() == [0, -1, -1]
    assert two["box_labels"][0, :3].tolist() == [0, 1, -1]


def test_nan_never_wins_and_boxes_end_at_the_image():
    found = predictions(1)
    found["class_logits"][3] = found["class_logits"][3].at[0, 0].set(np.nan)
    found["distances"][5] = found["distances"][5] * 100
    answer = task().decode(found, SIZE)
    assert all(np.isfinite(value).all() for value in answer.values())
    boxes = np.asarray(answer["boxes"])
    assert (boxes >= 0).all()
    assert (boxes[..., 2] <= SIZE[1]).all()
    assert (boxes[..., 3] <= SIZE[0]).all()


def test_a_check_counts_boxes_that_no_location_learns():
    # The first box lies between the locations, which are at 4, 12, 20 …
    data = batch([[(5, 5, 8, 8), (8, 8, 40, 44)], [(5, 5, 8, 8)]], [[0, 1], [0]])
    data["boxes"][np.isnan(data["boxes"])] = 0
    found = task().inspect(data, predictions(1))
    assert "2 of 3 boxes have no location, and are not learned" in found.lines[-1]
    assert found.passed


def test_only_so_many_candidates_of_a_level_compete():
    found = predictions(1)
    few = task(candidates=1, iou_threshold=1.0).decode(found, SIZE)
    assert np.sum(np.asarray(few["box_labels"]) >= 0) == len(LEVELS)


def test_locations_follow_the_backbone_or_the_offset():
    made = task(cell_offset={3: (0.5, 0.5), 4: (2.0, 1.0)})
    assert made.first_cell(3) == (0.5, 0.5)
    # A coarser level begins at the cell of the coarsest one of the backbone.
    assert made.first_cell(6) == (2.0, 1.0)
    assert task(offset=0.0, cell_offset={3: (0.5, 0.5)}).first_cell(3) == (0, 0)
    assert task().first_cell(4) == (8, 8)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"radius": 0}, "task.radius is 0"),
        ({"level_range": -1}, "task.level_range is -1"),
        ({"box_weight": -1}, "task.box_weight is -1"),
        ({"iou_threshold": 2}, "task.iou_threshold is 2"),
        ({"suppression": "soft"}, "task.suppression 'soft' is unknown"),
        ({"shown_threshold": 0.01}, r"task.shown_threshold is 0.01.*\[0.05, 1\]"),
        ({"candidates": 0}, "task.candidates is 0"),
        ({"offset": 1.0}, "task.offset is 1.0"),
    ],
)
def test_bad_values_are_named(changes, text):
    with pytest.raises(InputError, match=text):
        FCOSDetection(CLASSES, **changes)
