"""Suppression against loops that sort and delete, and in its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import suppression


def overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.prod(np.maximum(high - low, 0))
    areas = [np.prod(np.maximum(box[2:] - box[:2], 0)) for box in (a, b)]
    union = sum(areas) - both
    return both / union if union > 0 else 0.0


def loop(boxes, scores, labels, count, threshold, method, sigma, least):
    """Returns the kept boxes by a list from which boxes are taken, in float64."""
    left = {i: float(s) for i, s in enumerate(scores) if not np.isnan(s)}
    kept = []
    while left and len(kept) < count:
        best = max(left, key=lambda i: (left[i], -i))
        score = left.pop(best)
        if score < least:
            break
        kept.append((best, score))
        for i in list(left):
            if labels[i] != labels[best]:
                continue
            o = overlap(boxes[best], boxes[i])
            if method == "gaussian":
                left[i] *= np.exp(-(o**2) / sigma)
            elif o > threshold and method == "hard":
                del left[i]
            elif o > threshold:
                left[i] *= 1 - o
    return kept


def random_set(seed):
    """Returns boxes on a grid, so that many are equal, with equal and NaN scores."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 12, (40, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 8, (40, 2))], 1)
    scores = rng.integers(1, 12, 40) / 12
    scores[rng.integers(0, 40, 2)] = np.nan
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, 3, 40)


@pytest.mark.parametrize("most", [12, 40])
@pytest.mark.parametrize("method", suppression.METHODS)
def test_kept_boxes_are_those_of_a_loop(method, most):
    run = jax.jit(
        lambda *given: suppression.suppress(
            *given,
            max_boxes=most,
            iou_threshold=0.4,
            method=method,
            sigma=0.3,
            least_score=0.05,
        )
    )
    for seed in range(40):
        boxes, scores, labels = random_set(seed)
        kept = run(boxes, scores, labels)
        expected = loop(boxes, scores, labels, most, 0.4, method, 0.3, 0.05)
        count = int(kept.count)
        assert count == len(expected)
        assert (count < most) == (most == 40)
        np.testing.assert_array_equal(kept.index[count:], -1)
        np.testing.assert_array_equal(kept.score[count:], 0)
        # Soft scores may tie in one precision and not in the other.
        if method == "hard":
            assert kept.index[:count].tolist() == [i for i, _ in expected]
        np.testing.assert_allclose(
            kept.score[:count], [s for _, s in expected], rtol=1e-5
        )


def test_a_batch_is_its_images_one_by_one():
    sets = [random_set(seed) for seed in range(6)]
    boxes, scores, labels = (np.stack(x) for x in zip(*sets, strict=True))
    shaped = [x.reshape(2, 3, *x.shape[1:]) for x in (boxes, scores, labels)]
    together = suppression.suppress(*shaped, max_boxes=20)
    assert together.index.shape == (2, 3, 20)
    assert together.count.shape == (2, 3)
    for row, (b, s, c) in enumerate(sets):
        alone = suppression.suppress(b, s, c, max_boxes=20)
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, all_of_them[row // 3, row % 3])


def test_an_empty_set_of_boxes_is_legal():
    kept = suppression.suppress(jnp.zeros((2, 0, 4)), jnp.zeros((2, 0)), max_boxes=3)
    assert kept.index.tolist() == [[-1] * 3] * 2
    assert kept.score.tolist() == [[0] * 3] * 2
    assert kept.count.tolist() == [0, 0]


def test_labels_decide_who_suppresses_whom():
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10]])
    scores, labels = jnp.array([0.9, 0.8, 0.7]), jnp.array([0, 1, 0])
    every = suppression.suppress(boxes, scores, max_boxes=3)
    assert every.index.tolist() == [0, -1, -1]
    by_class = suppression.suppress(boxes, scores, labels, max_boxes=3)
    assert by_class.index.tolist() == [0, 1, -1]


def test_the_threshold_itself_does_not_suppress():
    boxes = jnp.array([[0.0, 0, 2, 1], [0, 0, 1, 1]])
    scores = jnp.array([0.9, 0.8])
    assert suppression.suppress(boxes, scores, max_boxes=2).count == 2
    below = suppression.suppress(boxes, scores, max_boxes=2, iou_threshold=0.49)
    assert below.count == 1


def test_boxes_without_an_area_suppress_nothing():
    boxes = jnp.zeros((3, 4))
    kept = suppression.suppress(boxes, jnp.array([0.1, 0.3, 0.2]), max_boxes=3)
    assert kept.index.tolist() == [1, 2, 0]


@pytest.mark.parametrize("scores", [[np.nan] * 3, [-np.inf] * 3])
@pytest.mark.parametrize("method", suppression.METHODS)
def test_scores_that_are_no_numbers_never_win(scores, method):
    boxes = jnp.ones((3, 4)) * jnp.array([0, 0, 1, 1])
    kept = suppression.suppress(
        boxes, jnp.array(scores, jnp.float32), max_boxes=4, method=method
    )
    assert kept.index.tolist() == [-1] * 4
    assert kept.score.tolist() == [0] * 4
    mixed = jnp.array([scores[0], 0.5, scores[0]], jnp.float32)
    kept = suppression.suppress(boxes, mixed, max_boxes=2, method=method)
    assert kept.index.tolist() == [1, -1]


def test_bfloat16_boxes_are_compared_in_float32():
    boxes, scores, labels = random_set(3)
    wide = suppression.suppress(boxes, scores, labels, max_boxes=10)
    narrow = suppression.suppress(
        jnp.asarray(boxes, jnp.bfloat16), jnp.asarray(scores), labels, max_boxes=10
    )
    # Corners up to 20 are whole numbers, which bfloat16 has exactly.
    np.testing.assert_array_equal(wide.index, narrow.index)
    assert narrow.score.dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_boxes": 0}, "max_boxes is 0"),
        ({"iou_threshold": 1.5}, "iou_threshold is 1.5"),
        ({"method": "fast"}, "method"),
        ({"sigma": 0.0}, "sigma is 0.0"),
    ],
)
def test_refused_values_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        suppression.suppress(
            jnp.zeros((2, 4)), jnp.zeros(2), **{"max_boxes": 2} | changes
        )
