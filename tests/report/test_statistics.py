import numpy as np
import pytest
from sklearn import metrics

from fpn_jax.report import statistics


def test_confusion_matrix_and_class_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, (2, 300))
    matrix = statistics.confusion_matrix(labels, predicted, 5)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, predicted))
    expected = metrics.precision_recall_fscore_support(labels, predicted)
    for ours, theirs in zip(statistics.class_scores(matrix), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_an_absent_class_has_no_scores():
    scores = statistics.class_scores(np.array([[3, 0, 0], [1, 2, 0], [0, 0, 0]]))
    np.testing.assert_allclose(scores.recall, [1, 2 / 3, np.nan])
    np.testing.assert_allclose(scores.precision, [3 / 4, 1, np.nan])
    assert np.isnan(scores.f1[2])
    assert scores.support.tolist() == [3, 3, 0]


def test_calibration_error_equals_a_loop_over_the_bins():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(500), [0.0, 1.0, 1 / 15, 0.2]])
    correct = rng.random(504) < confidence
    error = 0.0
    for low, high in zip(
        np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True
    ):
        # The paper's bins are (low, high]; the first bin includes 0, too.
        chosen = (confidence > low) & (confidence <= high)
        chosen |= (low == 0) & (confidence == 0)
        if chosen.any():
            gap = abs(correct[chosen].mean() - confidence[chosen].mean())
            error += chosen.mean() * gap
    got = statistics.calibration(confidence, correct)
    np.testing.assert_allclose(got.error, error, rtol=1e-12)
    assert got.count.sum() == 504


def test_calibration_error_of_known_cases():
    def error(confidence, correct):
        return statistics.calibration(confidence, correct).error

    assert error(np.ones(4), np.ones(4, bool)) == 0
    assert error(np.full(4, 0.9), np.zeros(4, bool)) == pytest.approx(0.9)
    assert np.isnan(error(np.zeros(0), np.zeros(0, bool)))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998),
    # table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)],
)
def test_wilson_interval_equals_published_values(correct, total, low, high):
    np.testing.assert_allclose(
        statistics.wilson_interval(correct, total), (low, high), atol=5e-5
    )


def test_series_skips_absent_keys_and_reads_nonfinite_values():
    entries = [
        {"step": 1, "a": 2},
        {"step": 2, "b": 1},
        {"step": 3, "a": "NaN"},
        {"step": 4, "a": None},
        {"step": 5, "a": "inf"},
    ]
    steps, values = statistics.series(entries, "a")
    assert steps.tolist() == [1, 3, 4, 5]
    np.testing.assert_array_equal(values, [2, np.nan, np.nan, np.nan])


def test_smoothing_keeps_a_constant_and_ignores_nan():
    values = np.full(200, 3.0)
    values[[0, 50, 51, 199]] = np.nan
    np.testing.assert_allclose(statistics.smooth(values), 3.0)
    noise = np.random.default_rng(0).normal(size=600)
    assert statistics.smooth(noise).std() < 0.4 * noise.std()
