"""The grid of YOLO: there and back, and who is responsible, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops import grid

SIZE, STRIDE = (3, 5), 16.0
ANCHORS = jnp.array([(10.0, 10.0), (30.0, 15.0), (20.0, 60.0)])


def random_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    middle = rng.uniform(0, 1, (count, 2)) * (SIZE[1] * STRIDE, SIZE[0] * STRIDE)
    half = rng.uniform(2, 30, (count, 2))
    return np.concatenate([middle - half, middle + half], 1).astype(np.float32)


def responsible(boxes):
    """Returns the predictor of every box, by a loop."""
    found = []
    for x0, y0, x1, y1 in boxes:
        column, row = int((x0 + x1) / 2 // STRIDE), int((y0 + y1) / 2 // STRIDE)
        best, kind = -1.0, 0
        for number, (width, height) in enumerate(np.asarray(ANCHORS)):
            both = min(x1 - x0, width) * min(y1 - y0, height)
            iou = both / ((x1 - x0) * (y1 - y0) + width * height - both)
            if iou > best:
                best, kind = iou, number
        found.append((row * SIZE[1] + column) * len(ANCHORS) + kind)
    return found


def test_a_box_belongs_to_the_cell_of_its_middle_and_the_nearest_shape():
    boxes = random_boxes(40)
    found = grid.assign(boxes, np.ones(40, bool), ANCHORS, SIZE, STRIDE)
    assert found.predictor.tolist() == responsible(boxes)
    owner = {}
    for number, predictor in enumerate(found.predictor.tolist()):
        area = np.prod(boxes[number, 2:] - boxes[number, :2])
        if predictor not in owner or area > owner[predictor][0]:
            owner[predictor] = area, number
    winners = sorted(number for _, number in owner.values())
    assert np.flatnonzero(found.wins).tolist() == winners
    assert 0 < len(winners) < 40


def test_decoding_is_the_inverse_of_encoding():
    boxes = random_boxes(30, 1)
    predictor, _ = grid.assign(boxes, np.ones(30, bool), ANCHORS, SIZE, STRIDE)
    target = grid.encode(boxes, predictor, SIZE, ANCHORS, STRIDE)
    assert ((target[:, :2] >= 0) & (target[:, :2] <= 1)).all()
    numbers = np.zeros((SIZE[0] * SIZE[1] * 3, 4), np.float32)
    for number, place in enumerate(predictor.tolist()):
        share = np.clip(target[number, :2], 1e-6, 1 - 1e-6)
        numbers[place, :2] = np.log(share / (1 - share))
        numbers[place, 2:] = target[number, 2:]
        decoded = grid.decode(numbers, SIZE, ANCHORS, STRIDE)
        np.testing.assert_allclose(decoded[place], boxes[number], atol=1e-3)


def test_the_first_numbers_give_anchors_in_the_middle_of_the_cells():
    boxes = grid.decode(np.zeros((45, 4), np.float32), SIZE, ANCHORS, STRIDE)
    boxes = np.asarray(boxes).reshape(3, 5, 3, 4)
    np.testing.assert_allclose(boxes[1, 2, 1], (40 - 15, 24 - 7.5, 40 + 15, 24 + 7.5))
    far = grid.decode(np.full((45, 4), 99, np.float32), SIZE, ANCHORS, STRIDE)
    assert np.isfinite(far).all()


def test_ties_padding_and_the_border():
    box = np.array([[0, 0, 20, 20]] * 3, np.float32)
    wins = grid.assign(box, np.array([False, True, True]), ANCHORS, SIZE, STRIDE).wins
    assert wins.tolist() == [False, True, False]
    padding = np.full((2, 4), np.nan, np.float32)
    found = grid.assign(padding, np.zeros(2, bool), ANCHORS, SIZE, STRIDE)
    assert found.wins.tolist() == [False, False]
    corner = np.array([[70, 38, 90, 58]], np.float32)
    found = grid.assign(corner, np.ones(1, bool), ANCHORS, SIZE, STRIDE)
    assert int(found.predictor[0]) // 3 == SIZE[0] * SIZE[1] - 1


def test_equal_shapes_overlap_entirely_and_empty_ones_not():
    iou = grid.shape_iou(jnp.array([[10.0, 10.0], [0.0, 0.0]]), ANCHORS)
    assert iou[0, 0] == 1
    assert not iou[1].any()
    gradient = jax.grad(lambda s: grid.shape_iou(s, ANCHORS).sum())(jnp.zeros((1, 2)))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("count", [1, 3])
def test_cells_are_counted_by_rows(count):
    cells = np.asarray(grid.cells((2, 3), count)).reshape(2, 3, count, 2)
    assert cells[1, 2, 0].tolist() == [2, 1]
    assert (cells == cells[:, :, :1]).all()
