"""Non-maximum suppression with fixed shapes: hard, soft, per class or for all classes.

Every step takes the box with the highest score and lowers the scores of the boxes that
overlap it. A scan of argmax steps needs no sorting, works under `jit`, `vmap` and
`jax.export`, and takes time in proportion to the number of boxes that are kept.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpn_jax import errors
from fpn_jax.ops import boxes as box_ops

METHODS = ("hard", "linear", "gaussian")


class Kept(NamedTuple):
    """The boxes that were kept, the best first.

    Attributes:
      index: int32 `[…, K]`, number of the box; -1 where no box is left.
      score: float32 `[…, K]`, its score after suppression; 0 where no box is left.
      count: int32 `[…]`, how many boxes were kept.
    """

    index: jax.Array
    score: jax.Array
    count: jax.Array


def suppress(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array | None = None,
    *,
    max_boxes: int,
    iou_threshold: float = 0.5,
    method: str = "hard",
    sigma: float = 0.5,
    least_score: float = -math.inf,
) -> Kept:
    """Returns the boxes that remain where the best box of every group is kept.

    A kept box with the overlap `o` changes the score `s` of another one:

      hard      removed if `o > iou_threshold`
      linear    `s · (1 − o)` if `o > iou_threshold`
      gaussian  `s · exp(−o² / sigma)`

    "Soft-NMS – Improving Object Detection With One Line of Code" (arXiv 1704.04503) for
    the last two. Of equal scores, the first box wins. A score that is NaN never wins.

    Args:
      boxes: `[…, N, 4]` as `(x0, y0, x1, y1)`.
      scores: `[…, N]`.
      labels: int `[…, N]`; boxes of different labels do not suppress each other. None
        compares all boxes.
      max_boxes: `K`, how many boxes are kept at most, 1 or more.
      iou_threshold: In [0, 1]; not used by "gaussian".
      method: One of `METHODS`.
      sigma: Width of the Gaussian, above 0; used by "gaussian" alone.
      least_score: A box whose score has fallen below is not kept. Soft suppression
        keeps nearly all boxes without it; the paper's code has 0.001.

    Raises:
      InputError: The method is unknown, or a number is out of range.
    """
    errors.at_least("max_boxes", max_boxes, 1, whole=True)
    errors.within("iou_threshold", iou_threshold, 0, 1)
    errors.one_of("method", method, METHODS)
    errors.within("sigma", sigma, 0, math.inf, open_low=True)
    scores = jnp.asarray(scores, jnp.float32)
    if not scores.size:
        shape = (*scores.shape[:-1], max_boxes)
        nothing = jnp.full(shape, -1, jnp.int32), jnp.zeros(shape)
        return Kept(*nothing, jnp.zeros(shape[:-1], jnp.int32))
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    labels = jnp.zeros(scores.shape) if labels is None else jnp.asarray(labels)
    lowered = functools.partial(_lowered, iou_threshold, method, sigma)
    one = functools.partial(_suppress_one, lowered, max_boxes, least_score)
    for _ in range(scores.ndim - 1):
        one = jax.vmap(one)
    return one(jnp.asarray(boxes, jnp.float32), scores, labels)


def _lowered(
    iou_threshold: float,
    method: str,
    sigma: float,
    scores: jax.Array,
    overlap: jax.Array,
) -> jax.Array:
    """Returns the scores of boxes of the same label beside a box that is kept."""
    if method == "gaussian":
        return scores * jnp.exp(-jnp.square(overlap) / sigma)
    after = -jnp.inf if method == "hard" else scores * (1 - overlap)
    return jnp.where(overlap > iou_threshold, after, scores)


def _suppress_one(lowered, max_boxes, least_score, boxes, scores, labels) -> Kept:
    """Returns the kept boxes of one image."""

    def step(scores, _):
        best = jnp.argmax(scores)
        score = scores[best]
        found = (score > -jnp.inf) & (score >= least_score)
        same = labels == labels[best]
        # A removed score is −∞, and −∞ · 0 would be NaN.
        alive = same & (scores > -jnp.inf)
        overlap = box_ops.iou(boxes[best], boxes)
        scores = jnp.where(alive, lowered(scores, overlap), scores)
        scores = scores.at[best].set(-jnp.inf)
        return scores, (jnp.where(found, best, -1), jnp.where(found, score, 0))

    _, (index, score) = jax.lax.scan(step, scores, length=max_boxes)
    index = index.astype(jnp.int32)
    return Kept(index, score, jnp.sum(index >= 0, dtype=jnp.int32))
