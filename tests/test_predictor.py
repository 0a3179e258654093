"""Answers in the pixels of a photograph, and how many images make a batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.data.crops import Letterbox
from fpn_jax.data.sources.drawn import INFO
from fpn_jax.predictor import MAX_BATCH, Predictor, in_image
from fpn_jax.views import VIEWS

SIZES = [(60, 90), (90, 60), (33, 97), (64, 64), (20, 20)]


def half(size, share):
    """Returns probabilities of two classes: the second one is right of a line."""
    x = (np.arange(size) + 0.5) / size
    right = np.clip((x - share) * 4 + 0.5, 0, 1).astype(np.float32)
    right = np.broadcast_to(right, (size, size))
    return np.stack([1 - right, right], axis=-1)


@pytest.mark.parametrize("size", SIZES)
def test_a_letterbox_is_undone_for_masks(size):
    placement = Letterbox(64).placement(size)
    full = np.zeros(size, np.uint8)
    full[:, size[1] // 2 :] = 1
    small = placement.mask(full, fill=0)
    answer = {"mask": small, "mask_probabilities": np.eye(2, dtype=np.float32)[small]}
    moved = in_image(answer, placement)
    assert set(moved) == {"mask"}
    assert moved["mask"].shape == size
    assert moved["mask"].dtype == np.uint8
    # The border may move by a pixel of the smaller picture.
    scale = max(size) / 64
    wrong = np.nonzero(moved["mask"] != full)[1]
    assert (abs(wrong + 0.5 - size[1] / 2) <= scale + 1).all()


def test_probabilities_are_resized_before_the_class_is_chosen():
    """The line between two classes is straight, not a staircase of 16 cells."""
    placement = Letterbox(16).placement((160, 160))
    probabilities = half(16, 0.4)
    answer = {
        "mask": probabilities.argmax(-1).astype(np.uint8),
        "mask_probabilities": probabilities,
    }
    fine = in_image(answer, placement)["mask"]
    borders = 160 - fine.sum(axis=1)
    np.testing.assert_allclose(borders, 0.4 * 160, atol=1)
    coarse = in_image({"mask": answer["mask"]}, placement)["mask"]
    assert abs((160 - coarse.sum(axis=1)) - 0.4 * 160).max() > 2


def test_the_class_with_the_greatest_moved_score_wins():
    rng = np.random.default_rng(0)
    placement = Letterbox(12).placement((30, 40))
    scores = rng.random((12, 12, 5)).astype(np.float32)
    back = placement.inverse
    each = [back.class_of(scores[..., [0, k]]) for k in range(1, 5)]
    best = back.class_of(scores)
    # Class 0 is the best of all exactly where it is better than each other class.
    np.testing.assert_array_equal(best == 0, np.all([m == 0 for m in each], axis=0))
    assert set(np.unique(best)) <= set(range(5))


@pytest.mark.parametrize(("classes", "batch"), [(2, 64), (200, 5), (100_000, 1)])
def test_large_answers_make_smaller_batches(classes, batch):
    def answer(images):
        shape = (images.shape[0], 256, 256, classes)
        return {"mask_probabilities": jnp.zeros(shape, jnp.float32)}

    predictor = Predictor(
        answer=answer,
        transform=Letterbox(256),
        info=INFO,
        view=VIEWS["class_map"],
        image_size=(256, 256),
    )
    assert predictor.batch_size == batch <= MAX_BATCH
