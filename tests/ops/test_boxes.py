"""Areas, overlaps and conversions of boxes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.ops import boxes

UNIT = np.array([0.0, 0.0, 1.0, 1.0], np.float32)


def random_boxes(count=50, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 5, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.1, 5, (count, 2))], 1).astype(
        np.float32
    )


def painted(box, scale=20):
    """Returns the cells of a fine grid whose middles a box covers."""
    middles = (np.arange(10 * scale) + 0.5) / scale
    x = (middles >= box[0]) & (middles < box[2])
    y = (middles >= box[1]) & (middles < box[3])
    return y[:, None] & x


def test_iou_and_giou_are_those_of_painted_boxes():
    # Corners on the lines of the grid make the painted areas exact.
    a = np.round(random_boxes(20) * 20) / 20
    b = np.round(random_boxes(20, 1) * 20) / 20
    for one, two, iou, giou in zip(
        a, b, boxes.iou(a, b), boxes.giou(a, b), strict=True
    ):
        first, second = painted(one), painted(two)
        union = (first | second).sum()
        expected = (first & second).sum() / union
        around = np.concatenate([np.minimum(one, two)[:2], np.maximum(one, two)[2:]])
        enclosing = painted(around).sum()
        np.testing.assert_allclose(iou, expected, atol=1e-5)
        np.testing.assert_allclose(
            giou, expected - (enclosing - union) / enclosing, atol=1e-5
        )


FAMILY = [boxes.iou, boxes.giou, boxes.diou, boxes.ciou]


@pytest.mark.parametrize("function", FAMILY)
def test_equal_boxes_have_1_and_scale_does_not_matter(function):
    a, b = random_boxes(), random_boxes(seed=1)
    np.testing.assert_allclose(function(a, a), 1, rtol=1e-6)
    np.testing.assert_allclose(
        function(3 * a + 7, 3 * b + 7), function(a, b), atol=1e-5
    )


def test_giou_of_boxes_far_apart_is_nearly_minus_1():
    assert boxes.iou(UNIT, UNIT + 1e4) == 0
    np.testing.assert_allclose(boxes.giou(UNIT, UNIT + 1e4), -1, atol=1e-6)


@pytest.mark.parametrize("function", FAMILY)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (UNIT, UNIT),
        (UNIT, UNIT + np.array([1, 0, 1, 0], np.float32)),
        (UNIT, np.zeros(4, np.float32)),
        (np.zeros(4, np.float32), np.zeros(4, np.float32)),
        (UNIT[[2, 3, 0, 1]], UNIT),
    ],
)
def test_gradients_are_finite_at_equal_touching_empty_and_reversed_boxes(
    function, a, b
):
    value, gradients = jax.value_and_grad(function, argnums=(0, 1))(a, b)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_diou_and_ciou_are_their_formulas():
    a, b = random_boxes(), random_boxes(seed=1)
    for one, two, diou, ciou in zip(
        a, b, boxes.diou(a, b), boxes.ciou(a, b), strict=True
    ):
        iou = float(boxes.iou(one, two))
        apart = np.hypot(*((one[:2] + one[2:]) - (two[:2] + two[2:]))) / 2
        low, high = np.minimum(one, two)[:2], np.maximum(one, two)[2:]
        expected = iou - apart**2 / np.sum((high - low) ** 2)
        np.testing.assert_allclose(diou, expected, atol=1e-5)
        angles = [math.atan((x[2] - x[0]) / (x[3] - x[1])) for x in (one, two)]
        v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
        expected -= v * v / (1 - iou + v)
        np.testing.assert_allclose(ciou, expected, atol=1e-5)


def test_boxes_are_clipped_to_the_image():
    made = jnp.array([[-3.0, 2, 25, 12], [1, 1, 2, 2]])
    assert boxes.clip(made, (10, 20)).tolist() == [[0, 2, 20, 10], [1, 1, 2, 2]]


def test_decoding_undoes_encoding_and_limits_growth():
    made, anchors = random_boxes(), random_boxes(seed=4)
    deltas = boxes.encode(made, anchors)
    np.testing.assert_allclose(boxes.decode(deltas, anchors), made, atol=1e-5)
    one = boxes.encode(jnp.array([2.0, 2, 6, 10]), jnp.array([0.0, 0, 4, 4]))
    np.testing.assert_allclose(one, [0.5, 1, 0, math.log(2)], atol=1e-6)
    huge = boxes.decode(jnp.array([0.0, 0, 50, 0]), jnp.array([0.0, 0, 16, 16]))
    np.testing.assert_allclose(huge[2] - huge[0], 1000, rtol=1e-5)
    narrow = boxes.decode(deltas.astype(jnp.bfloat16), anchors.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.float32


def test_an_empty_box_is_encoded_as_finite_numbers():
    def total(box):
        return boxes.encode(box, jnp.array([0.0, 0, 4, 4])).sum()

    for box in (jnp.zeros(4), jnp.array([3.0, 3, 1, 1])):
        value, gradient = jax.value_and_grad(total)(box)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_an_empty_or_reversed_box_has_no_area():
    assert boxes.area(UNIT[[2, 3, 0, 1]]) == 0
    assert boxes.area(jnp.array([0.0, 0, 2, 0])) == 0
    assert boxes.iou(jnp.zeros(4), jnp.zeros(4)) == 0


def test_conversions_undo_each_other():
    made = random_boxes()
    np.testing.assert_allclose(
        boxes.from_center_size(boxes.to_center_size(made)), made, rtol=1e-5
    )
    # The order is x, y, height, width.
    assert boxes.to_center_size(jnp.array([0.0, 0, 4, 2])).tolist() == [2, 1, 2, 4]
    scaled = boxes.scale(jnp.array([0.0, 0.5, 1, 1]), (10, 20))
    assert scaled.tolist() == [0, 5, 20, 10]


def test_a_vote_is_the_mean_weighted_by_the_softmax():
    values = jnp.array([[[0.0], [10.0], [20.0]]])
    even = boxes.vote(values, jnp.zeros((1, 3, 1)))
    sure = boxes.vote(values, jnp.array([[[0.0], [90.0], [0.0]]]))
    np.testing.assert_allclose([even[0, 0], sure[0, 0]], [10, 10], rtol=1e-6)
    skewed = boxes.vote(values, jnp.log(jnp.array([[[1.0], [1.0], [2.0]]])))
    np.testing.assert_allclose(skewed, [[12.5]], rtol=1e-6)
