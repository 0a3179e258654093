"""ROC and its numbers against scikit-learn, and the definitions on small sets."""

import numpy as np
import pytest
from sklearn import metrics

from fpn_jax.metrics import verification


def scored(seed, count=400, ties=False):
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.3
    similarity = rng.normal(size=count) + same
    return np.round(similarity, 1) if ties else similarity, same


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_roc_is_that_of_scikit_learn(seed, weighted, ties):
    similarity, same = scored(seed, ties=ties)
    weight = np.random.default_rng(seed).integers(0, 4, len(same)) if weighted else None
    curve = verification.roc(similarity, same, weight)
    false, true, threshold = metrics.roc_curve(
        same, similarity, sample_weight=weight, drop_intermediate=False
    )
    shares = dict(zip(threshold, zip(false, true, strict=True), strict=True))
    for number, value in enumerate(curve.threshold):
        # scikit-learn leaves out thresholds whose pairs have no weight.
        if value in shares:
            found = curve.false_accept[number], curve.true_accept[number]
            np.testing.assert_allclose(found, shares[value], atol=1e-12)
    expected = metrics.roc_auc_score(same, similarity, sample_weight=weight)
    assert verification.area(curve) == pytest.approx(expected, abs=1e-12)


def test_perfect_reversed_and_constant_similarities():
    same = np.array([True, True, False, False])
    for similarity, area, error in (
        ([4, 3, 2, 1], 1, 0),
        ([1, 2, 3, 4], 0, 1),
        ([1, 1, 1, 1], 0.5, 0.5),
    ):
        curve = verification.roc(np.array(similarity, float), same)
        assert verification.area(curve) == area
        assert verification.equal_error_rate(curve) == error


def test_equal_error_rate_is_where_the_line_crosses():
    similarity, same = scored(0, 20_000)
    curve = verification.roc(similarity, same)
    error = verification.equal_error_rate(curve)
    rejected = 1 - np.interp(error, curve.false_accept, curve.true_accept)
    assert rejected == pytest.approx(error, abs=1e-3)
    # Two normal distributions at a distance of 1: Φ(−½).
    assert error == pytest.approx(0.3085, abs=0.01)


def test_true_accepts_are_not_interpolated():
    similarity = np.array([5.0, 4, 3, 2, 1])
    same = np.array([True, False, True, False, True])
    curve = verification.roc(similarity, same)
    assert verification.true_accept_at(curve, 0.0) == pytest.approx(1 / 3)
    assert verification.true_accept_at(curve, 0.49) == pytest.approx(1 / 3)
    assert verification.true_accept_at(curve, 0.5) == pytest.approx(2 / 3)


@pytest.mark.parametrize("same", [True, False])
def test_a_set_without_one_of_the_kinds_is_refused(same):
    missing = "two individuals" if same else "one individual"
    with pytest.raises(ValueError, match=f"no pair of {missing}"):
        verification.roc(np.arange(3.0), np.full(3, same))


def test_rank_one_omits_the_single_and_counts_ties_as_wrong():
    identity = np.array([0, 0, 1, 1, 2])
    itself = np.eye(5, dtype=bool)
    same = (identity[:, None] == identity) & ~itself
    other = identity[:, None] != identity
    similarity = -np.abs(np.subtract.outer([0, 1, 2, 10, 11.0], [0, 1, 2, 10, 11.0]))
    # The second one is as near to the third; the third and fourth are far apart.
    found = verification.rank_one(similarity, same, other)
    assert found.tolist() == [True, False, False, False]


def test_fold_accuracy_takes_the_threshold_from_the_others():
    same = np.tile([True, False], 6)
    fold = np.repeat(np.arange(3), 4)
    assert (
        verification.fold_accuracy(same.astype(float), same, fold).tolist() == [1] * 3
    )
    # The last fold is shifted, so that the threshold of the others fails there.
    shifted = same + 10.0 * (fold == 2)
    assert verification.fold_accuracy(shifted, same, fold)[2] == 0.5


def test_a_threshold_is_in_the_middle_of_the_gap():
    same = np.array([True, False, True, False])
    fold = np.array([0, 0, 1, 1])
    # The other fold has 1 and 0, so its threshold is 0.5.
    similarity = np.array([1.0, 0.0, 0.6, 0.4])
    assert verification.fold_accuracy(similarity, same, fold)[1] == 1


def test_a_bootstrap_draws_individuals_with_all_of_their_pictures():
    identity = np.array([5, 5, 7, 9, 9, 9])
    drawn = verification.resampled_weights(identity, 500, np.random.default_rng(0))
    assert drawn.shape == (500, 6)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, [0, 2, 3]].sum(1) == 3).all()
    assert drawn.mean(0) == pytest.approx(np.ones(6), abs=0.15)
    weight = np.array([2, 2, 1, 0, 0, 0])
    first, second = np.array([0, 0, 2, 3]), np.array([1, 2, 3, 4])
    same = identity[first] == identity[second]
    found = verification.pair_weights(weight, first, second, same)
    assert found.tolist() == [2, 2, 0, 0]
