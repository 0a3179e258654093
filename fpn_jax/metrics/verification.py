"""Metrics of verification: do two pictures show the same individual?

Pairs have a similarity, larger for pictures that are nearer, such as the negative
distance of their embeddings. A pair is accepted if its similarity is at least a
threshold.
"""

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Shares of accepted pairs for every threshold, the highest first.

    Attributes:
      threshold: Similarities, descending; the first one, infinity, accepts no pair.
      false_accept: Share of the pairs of two individuals that are accepted (FAR).
      true_accept: Share of the pairs of one individual that are accepted (TAR).
    """

    threshold: np.ndarray
    false_accept: np.ndarray
    true_accept: np.ndarray


def roc(
    similarity: np.ndarray, same: np.ndarray, weight: np.ndarray | None = None
) -> Curve:
    """Returns the receiver operating characteristic.

    Pairs of equal similarity are accepted together.

    Args:
      similarity: float `[N]`, finite.
      same: Whether a pair shows one individual, bool `[N]`.
      weight: How often a pair counts, `[N]`; None counts each once.

    Raises:
      ValueError: There is no pair of one of the two kinds.
    """
    weight = np.ones(len(same)) if weight is None else np.asarray(weight, np.float64)
    order = np.argsort(-similarity, kind="stable")
    ranked, same, weight = similarity[order], same[order], weight[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    shares = []
    for kind, name in ((~same, "two individuals"), (same, "one individual")):
        accepted = np.cumsum(np.where(kind, weight, 0))
        if not len(accepted) or accepted[-1] <= 0:
            raise ValueError(f"there is no pair of {name}")
        shares.append(np.append(0, accepted[last] / accepted[-1]))
    return Curve(np.append(np.inf, ranked[last]), *shares)


def area(curve: Curve) -> float:
    """Returns the area under the curve (AUC): 1 is perfect, 0.5 is chance.

    It is the probability that two pictures of one individual are more similar than two
    pictures of two individuals.

    Args:
      curve: What `roc` returned.
    """
    return float(np.trapezoid(curve.true_accept, curve.false_accept))


def equal_error_rate(curve: Curve) -> float:
    """Returns the error where false accepts and false rejects are equal (EER).

    Both are interpolated between two thresholds.

    Args:
      curve: What `roc` returned.
    """
    gap = curve.false_accept - (1 - curve.true_accept)
    after = int(np.argmax(gap >= 0))
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    low, high = curve.false_accept[before], curve.false_accept[after]
    return float(low + share * (high - low))


def true_accept_at(curve: Curve, false_accept: float) -> float:
    """Returns the largest share of true accepts with at most a share of false ones.

    Nothing is interpolated, so a share of `f` needs at least `1 / f` pairs of two
    individuals, and ten times as many to mean much.

    Args:
      curve: What `roc` returned.
      false_accept: Largest share of false accepts, in [0, 1].
    """
    return float(curve.true_accept[curve.false_accept <= false_accept].max())


def rank_one(similarity: np.ndarray, same: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns whether the most similar picture shows the same individual, bool `[N]`.

    Pictures with no other one of their individual are omitted. A tie with a picture of
    another individual counts as wrong.

    Args:
      similarity: float `[N, M]`, of every picture to every picture of the gallery.
      same: Mask of the pairs with the same individual, bool `[N, M]`.
      other: Mask of the pairs with two, bool `[N, M]`. A pair in neither mask, such as
        a picture and itself, does not count.
    """
    asked = same.any(axis=1)
    best = np.where(same, similarity, -np.inf).max(axis=1, initial=-np.inf)
    rest = np.where(other, similarity, -np.inf).max(axis=1, initial=-np.inf)
    return (best > rest)[asked]


def fold_accuracy(
    similarity: np.ndarray, same: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Returns the accuracy of each fold, at the best threshold of the other folds.

    The protocol of Labeled Faces in the Wild, with as many folds as there are numbers.
    A threshold is the middle between two similarities; if several are equally good, the
    highest of them is used.

    Args:
      similarity: float `[N]`.
      same: Whether a pair shows one individual, bool `[N]`.
      fold: Number of the fold of each pair, int `[N]`.
    """
    found = []
    for number in np.unique(fold):
        held_out = fold == number
        threshold = _best_threshold(similarity[~held_out], same[~held_out])
        accepted = similarity[held_out] >= threshold
        found.append((accepted == same[held_out]).mean())
    return np.array(found)


def _best_threshold(similarity: np.ndarray, same: np.ndarray) -> float:
    curve = roc(similarity, same)
    right = curve.true_accept * same.sum() + (1 - curve.false_accept) * (~same).sum()
    best = int(np.argmax(right))
    # Only the last threshold, which accepts all pairs, has no similarity below it.
    return float(curve.threshold[best : best + 2].mean())


def resampled_weights(
    identity: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns how often each picture counts in bootstrap samples, int `[draws, N]`.

    Individuals are drawn with replacement, each with all of its pictures: pairs of an
    individual are not independent, so an interval from drawn pairs would be too narrow.

    Args:
      identity: int `[N]`.
      draws: Number of samples.
      rng: Where the samples are drawn from.
    """
    names, place = np.unique(identity, return_inverse=True)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), draws)
    return counts[:, place]


def pair_weights(
    weight: np.ndarray, first: np.ndarray, second: np.ndarray, same: np.ndarray
) -> np.ndarray:
    """Returns how often each pair counts in a bootstrap sample, float `[P]`.

    An individual that was drawn twice is two individuals, whose pictures are not
    compared with each other: a pair of one individual counts as often as it was drawn,
    a pair of two as often as the product.

    Args:
      weight: How often each picture was drawn, int `[N]`.
      first: Number of the first picture of each pair, int `[P]`.
      second: Number of the second one, int `[P]`.
      same: Whether a pair shows one individual, bool `[P]`.
    """
    return np.where(same, weight[first], weight[first] * weight[second]).astype(float)
