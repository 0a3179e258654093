"""The inverse of a placement takes points, boxes and masks back."""

import numpy as np
import pytest

from fpn_jax.data.geometry import Placement
from fpn_jax.data.records import IGNORE
from tests.data.test_geometry import ANIMALS, SIZES, UPRIGHT, chain, filled


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_takes_points_back(size):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        placement = chain(size, rng)
        points = np.column_stack([rng.random((30, 2)) * size[::-1], np.ones(30)])
        moved = placement.points(points)
        back = placement.inverse.points(moved)
        visible = moved[:, 2] == 1
        np.testing.assert_allclose(back[visible], points[visible], atol=1e-3)
        assert placement.inverse.size == size
        np.testing.assert_allclose(
            placement.inverse.matrix @ placement.matrix, np.eye(3), atol=1e-9
        )


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_takes_boxes_back(size):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        placement = chain(size, rng, UPRIGHT)
        x, y = (
            np.sort(rng.random((2, 20, 2)), axis=2) * size[1],
            np.sort(rng.random((20, 2)), axis=1) * size[0],
        )
        boxes = np.column_stack([x[0, :, 0], y[:, 0], x[0, :, 1], y[:, 1]])
        moved = placement.boxes(boxes, min_visible=1 - 1e-9)
        back = placement.inverse.boxes(moved.boxes, min_visible=0)
        np.testing.assert_allclose(back.boxes, boxes[moved.kept], atol=1e-3)


def test_the_inverse_of_a_mirror_swaps_back():
    placement = Placement.flip((64, 64)).then(Placement.rotate((64, 64), 5))
    points = ANIMALS[3]["landmarks"]
    moved = placement.points(points, ANIMALS.info.mirrored)
    back = placement.inverse.points(moved, ANIMALS.info.mirrored)
    np.testing.assert_allclose(back[:, :2], points[:, :2], atol=1e-4)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (25, 25), (1, 40)])
def test_a_letterbox_and_back_is_nothing(size):
    placement = Placement.letterbox(size, (3 * 40, 3 * 40))
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, size).astype(np.uint8)
    np.testing.assert_array_equal(placement.inverse.mask(placement.mask(mask)), mask)
    image = np.full((*size, 3), 255, np.uint8)
    boxed = placement.image(image)
    seen = (boxed == 255).all(axis=-1)
    assert ((boxed == 128).all(axis=-1) == ~seen).all()
    np.testing.assert_array_equal(placement.mask(mask) != IGNORE, seen)
    # The whole picture, in the middle, at one scale.
    scale = placement.matrix[[0, 1], [0, 1]]
    assert scale[0] == pytest.approx(scale[1], rel=0.03)
    rows, columns = np.nonzero(seen)
    assert abs(rows.min() - (119 - rows.max())) <= 1
    assert abs(columns.min() - (119 - columns.max())) <= 1
    assert max(np.ptp(rows), np.ptp(columns)) == 119


def test_answers_outside_of_the_crop_come_back_as_unknown():
    placement = Placement.crop((40, 60), (10, 20, 20, 20), (50, 50))
    answer = np.ones((50, 50), np.uint8)
    back = placement.inverse.mask(answer)
    expected = filled((40, 60), (20, 10, 40, 30))
    np.testing.assert_array_equal(back == 1, expected == 1)
    assert (back[expected == 0] == IGNORE).all()
    assert (placement.inverse.mask(answer, fill=0) == expected).all()
