"""Losses of embeddings: triplets with mining, and contrastive pairs.

Every loss takes the distances of all pairs of a batch, `[B, B]`, with an anchor in
each row, and two masks: pairs that show the same individual, and pairs that show two.
A pair may be in neither, such as an example and itself. A loss is one value for each
anchor, scaled so that their mean over the batch is the loss of the batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpn_jax.errors import one_of

MINING = ("all", "hard", "semi_hard")
AVERAGES = ("all", "active")

HIGHEST = jax.lax.Precision.HIGHEST


def squared_distances(x: jax.Array, y: jax.Array | None = None) -> jax.Array:
    """Returns `|x_i − y_j|²` of all pairs, float32 `[N, M]`, 0 or more.

    Args:
      x: `[N, C]`.
      y: `[M, C]`; None takes `x`, whose pairs with itself are exactly 0.
    """
    x = x.astype(jnp.float32)
    other = x if y is None else y.astype(jnp.float32)
    product = jnp.matmul(x, other.T, precision=HIGHEST)
    square = jnp.sum(x**2, -1)[:, None] + jnp.sum(other**2, -1) - 2 * product
    if y is None:
        square = jnp.where(jnp.eye(len(x), dtype=bool), 0.0, square)
    # Rounding makes the difference of near vectors negative.
    return jnp.maximum(square, 0)


def distances(x: jax.Array, y: jax.Array | None = None) -> jax.Array:
    """Returns the Euclidean distances of all pairs, float32 `[N, M]`.

    The gradient of a distance of 0 is 0.

    Args:
      x: `[N, C]`.
      y: `[M, C]`; None takes `x`.

    Example:
      >>> distances(jnp.array([[0.0, 0.0], [3.0, 4.0]])).tolist()
      [[0.0, 5.0], [5.0, 0.0]]
    """
    square = squared_distances(x, y)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def pairs(
    identity: jax.Array, photograph: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns the masks of the pairs with the same individual, and with two.

    An example is no pair with itself; one without an identity, −1, is in no pair.

    Args:
      identity: int `[B]`.
      photograph: int `[B]`; two pictures of the same photograph prove nothing, so they
        are in neither mask. −1 is a photograph of its own.

    Returns:
      `same` and `other`, bool `[B, B]`.
    """
    known = identity >= 0
    usable = known[:, None] & known & ~jnp.eye(len(identity), dtype=bool)
    if photograph is not None:
        shared = photograph[:, None] == photograph
        usable &= ~(shared & (photograph >= 0))
    same = identity[:, None] == identity
    return usable & same, usable & ~same


class Hardest(NamedTuple):
    """The pairs of each anchor that are hardest to tell apart.

    Attributes:
      positive: Number of the farthest example of the same individual, int32 `[B]`; of
        several, the first.
      negative: Number of the nearest one of another individual, int32 `[B]`.
      valid: Whether the anchor has both, bool `[B]`.
    """

    positive: jax.Array
    negative: jax.Array
    valid: jax.Array


def hardest(distance: jax.Array, same: jax.Array, other: jax.Array) -> Hardest:
    """Returns the batch-hard pairs (Hermans et al., arXiv 1703.07737).

    Args:
      distance: `[B, B]`.
      same: Mask of the pairs with the same individual, bool `[B, B]`.
      other: Mask of the pairs with two, bool `[B, B]`.
    """
    # `argmax` puts NaN first, which would hide it from the loss of other anchors only.
    far = jnp.where(same, distance, -jnp.inf)
    near = jnp.where(other, distance, jnp.inf)
    return Hardest(
        far.argmax(1).astype(jnp.int32),
        near.argmin(1).astype(jnp.int32),
        same.any(1) & other.any(1),
    )


class TripletLoss(NamedTuple):
    """What `triplet` returns.

    Attributes:
      loss: float32 `[B]`, of each anchor; the mean over the batch is the loss.
      mined: Number of triplets of each anchor that mining chose, float32 `[B]`.
      active: How many of them have a loss greater than 0, float32 `[B]`.
    """

    loss: jax.Array
    mined: jax.Array
    active: jax.Array


def triplet(
    distance: jax.Array,
    same: jax.Array,
    other: jax.Array,
    *,
    margin: float | None,
    mining: str = "hard",
    average: str = "all",
) -> TripletLoss:
    """Returns the triplet loss `[m + d(a, p) − d(a, n)]₊` of mined triplets.

    "hard" takes one triplet for each anchor, batch hard (Hermans et al., arXiv
    1703.07737). "all" takes every triplet. "semi_hard" takes every triplet with
    `d(a, p) < d(a, n) ≤ d(a, p) + m` (FaceNet, Schroff et al., arXiv 1503.03832), as
    `TripletMarginMiner("semihard")` of pytorch-metric-learning does.

    Args:
      distance: `[B, B]`.
      same: Mask of the pairs with the same individual, bool `[B, B]`.
      other: Mask of the pairs with two, bool `[B, B]`.
      margin: `m`; None is the soft margin, `log(1 + exp(d(a, p) − d(a, n)))`, whose
        loss is never 0. "semi_hard" needs a number.
      mining: One of `MINING`.
      average: "all" divides by the number of mined triplets, "active" by the number of
        those with a loss greater than 0, as pytorch-metric-learning does by default.

    Raises:
      InputError: `mining` or `average` is unknown.
      ValueError: "semi_hard" has no margin.
    """
    one_of("mining", mining, MINING)
    one_of("average", average, AVERAGES)
    if mining == "semi_hard" and margin is None:
        raise ValueError("mining 'semi_hard' needs a margin; None is a soft margin")
    if mining == "hard":
        found = hardest(distance, same, other)
        row = jnp.arange(len(distance))
        gap = distance[row, found.positive] - distance[row, found.negative]
        gap, chosen = gap[:, None, None], found.valid[:, None, None]
    else:
        gap = distance[:, :, None] - distance[:, None]
        chosen = same[:, :, None] & other[:, None]
        if mining == "semi_hard":
            chosen &= (gap < 0) & (gap >= -margin)
    gap = jnp.where(chosen, gap, 0)
    value = jax.nn.softplus(gap) if margin is None else jax.nn.relu(gap + margin)
    value = jnp.where(chosen, value, 0).astype(jnp.float32)
    mined = chosen.sum((1, 2), dtype=jnp.float32)
    active = (value > 0).sum((1, 2), dtype=jnp.float32)
    count = mined if average == "all" else active
    return TripletLoss(_scaled(value.sum((1, 2)), count), mined, active)


def contrastive(
    distance: jax.Array,
    same: jax.Array,
    other: jax.Array,
    *,
    margin: float,
    squared: bool = True,
    average: str = "all",
) -> jax.Array:
    """Returns the contrastive loss: `d²` of the same individual, `[m − d]₊²` of two.

    The means over both kinds of pairs are added, so the many pairs of two individuals
    do not outweigh the others (Hadsell et al., CVPR 2006, without the factors ½).

    Args:
      distance: `[B, B]`.
      same: Mask of the pairs with the same individual, bool `[B, B]`.
      other: Mask of the pairs with two, bool `[B, B]`.
      margin: `m`, the distance beyond which two individuals cost nothing.
      squared: Whether the terms are squared; `ContrastiveLoss` of
        pytorch-metric-learning does not square them.
      average: "all" divides by the number of pairs of a kind, "active" by the number
        of those with a loss greater than 0.

    Returns:
      float32 `[B]`, of each anchor.

    Raises:
      InputError: `average` is unknown.
    """
    one_of("average", average, AVERAGES)
    total = jnp.zeros(len(distance), jnp.float32)
    for value, chosen in ((distance, same), (jax.nn.relu(margin - distance), other)):
        value = jnp.where(chosen, value, 0).astype(jnp.float32)
        count = (chosen if average == "all" else value > 0).sum(1, dtype=jnp.float32)
        value = value**2 if squared else value
        total += _scaled(value.sum(1), count)
    return total


def _scaled(sums: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the sums of the anchors, so that their mean is the sum over the count."""
    return sums * len(sums) / jnp.maximum(count.sum(), 1)
