"""Which location takes which box, against a loop, and the distances."""

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.ops import fcos


def pyramid(size=64, levels=(3, 4, 5)):
    """Returns locations, strides and limits of the levels of a square image."""
    points, strides, low, high = [], [], [], []
    for level in levels:
        stride = 2**level
        middles = (np.arange(size // stride) + 0.5) * stride
        grid = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
        points.append(grid)
        strides += [stride] * len(grid)
        low += [0 if level == levels[0] else 4 * stride] * len(grid)
        high += [np.inf if level == levels[-1] else 8 * stride] * len(grid)
    arrays = (np.concatenate(points), strides, low, high)
    return [np.array(x, np.float32) for x in arrays]


def test_assignments_are_those_of_a_loop():
    points, strides, low, high = pyramid()
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        corner = rng.integers(0, 40, (5, 2))
        boxes = np.concatenate([corner, corner + rng.integers(0, 60, (5, 2))], 1)
        boxes = boxes.astype(np.float32)
        valid = rng.random(5) < 0.7
        boxes[~valid] = np.nan
        found = fcos.assign(points, strides, boxes, valid, limits=(low, high))
        for n, (x, y) in enumerate(points):
            best, least = -1, np.inf
            for m, (x0, y0, x1, y1) in enumerate(boxes):
                sides = [x - x0, y - y0, x1 - x, y1 - y]
                off = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
                inside = valid[m] and min(sides) > 0 and off < 1.5 * strides[n]
                if not inside or not low[n] < max(sides) < high[n]:
                    continue
                if (area := (x1 - x0) * (y1 - y0)) < least:
                    best, least = m, area
            assert found[n] == best
            seen.add(best)
    assert seen == {-1, 0, 1, 2, 3, 4}


def test_a_batch_is_its_images_one_by_one():
    points, strides, low, high = pyramid()
    boxes = np.array([[[0.0, 0, 30, 30]], [[20, 20, 64, 64]]], np.float32)
    valid = np.array([[True], [False]])
    together = fcos.assign(points, strides, boxes, valid, limits=(low, high))
    for one, box, ok in zip(together, boxes, valid, strict=True):
        alone = fcos.assign(points, strides, box, ok, limits=(low, high))
        np.testing.assert_array_equal(one, alone)
    assert (together[0] == 0).any()
    assert (together[1] == fcos.NONE).all()


def test_an_image_without_a_box_has_background_alone():
    points, strides, low, high = pyramid()
    found = fcos.assign(
        points,
        strides,
        np.zeros((2, 0, 4), np.float32),
        np.zeros((2, 0), bool),
        limits=(low, high),
    )
    assert found.shape == (2, len(points))
    assert (found == fcos.NONE).all()


def test_distances_and_boxes_undo_each_other():
    points, *_ = pyramid()
    box = np.array([3.0, 5, 40, 33], np.float32)
    sides = fcos.distances(points, box)
    np.testing.assert_allclose(
        fcos.from_distances(points, sides), np.tile(box, (len(points), 1)), atol=1e-5
    )


def test_centerness_in_its_limits():
    made = fcos.centerness(
        jnp.array([[2.0, 2, 2, 2], [1, 2, 4, 2], [0, 1, 1, 1], [-1, 1, 1, 1]])
    )
    np.testing.assert_allclose(made, [1, 0.5, 0, 0], atol=1e-6)
    for sides in ([2.0, 2, 2, 2], [0.0, 1, 1, 1], [0.0] * 4):
        gradient = jax.grad(lambda d: fcos.centerness(d))(jnp.array(sides))
        assert np.isfinite(gradient).all()
