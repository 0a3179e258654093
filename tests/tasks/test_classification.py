import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import losses
from fpn_jax.tasks.classification import Classification

LOGITS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
LABEL = np.array([0, 1, 2, 1, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5)])
def test_cross_entropy_equals_a_loop(smoothing, weights):
    expected = []
    for row, y in zip(LOGITS.astype(np.float64), LABEL, strict=True):
        log_p = row - np.log(np.sum(np.exp(row)))
        target = np.full(3, smoothing / 3)
        target[y] += 1 - smoothing
        expected.append(-np.sum(target * log_p) * (weights[y] if weights else 1))
    actual = losses.cross_entropy(
        LOGITS, LABEL, label_smoothing=smoothing, class_weights=weights
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_cross_entropy_and_gradient_of_large_logits_are_finite():
    loss = lambda x: jnp.sum(losses.cross_entropy(x, jnp.array([1])))  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(jnp.array([[1e4, -1e4]]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_loss_of_bfloat16_logits_is_float32():
    loss = losses.cross_entropy(LOGITS.astype(jnp.bfloat16), LABEL)
    assert loss.dtype == jnp.float32


def test_evaluation_ignores_smoothing_and_class_weights():
    batch = {"label": LABEL, "weight": np.ones(5, np.float32)}
    task = Classification(3, label_smoothing=0.2, class_weights=(1.0, 5.0, 1.0))
    plain = Classification(3)
    predictions = {"logits": jnp.asarray(LOGITS)}
    value = task.metrics(predictions, batch)["loss"].compute()
    expected = jnp.mean(plain.losses(predictions, batch)["cross_entropy"])
    assert value == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must be in \[0, 1\)"),
        ({"class_weights": (1.0,)}, "1 weights for 3 classes"),
        ({"class_weights": (1.0, -1.0, 1.0)}, "every weight must be 0 or more"),
    ],
)
def test_invalid_arguments_are_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        Classification(3, **arguments)


def test_decode_returns_the_argmax_and_the_softmax():
    answer = Classification(3).decode({"logits": jnp.asarray(LOGITS)}, (32, 32))
    np.testing.assert_array_equal(answer["label"], LOGITS.argmax(1))
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-5)


def test_evidence_is_the_logit_of_the_target_class():
    predictions = {"logits": jnp.asarray(LOGITS)}
    actual = Classification(3).evidence(predictions, jnp.asarray(LABEL))
    np.testing.assert_array_equal(actual, LOGITS[np.arange(5), LABEL])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_wrong_and_counted_apart(bad):
    task = Classification(num_classes=2)
    # Class 0 is the label of the bad rows, and the position of the largest NaN.
    logits = jnp.array([[bad, bad], [2.0, 1.0], [bad, 0.0], [0.0, 3.0]])
    batch = {
        "label": jnp.array([0, 0, 0, 1]),
        "weight": jnp.ones(4),
        "index": jnp.arange(4),
    }
    predictions = {"logits": logits}
    found = {
        name: metric.on_host().compute()
        for name, metric in task.metrics(predictions, batch).items()
    }
    assert found["accuracy"] == 0.5
    assert found["confusion"] == [[1, 0], [0, 1]]
    finite = logits[jnp.array([1, 3])]
    expected = task.metrics(
        {"logits": finite}, {key: value[1::2] for key, value in batch.items()}
    )
    error = expected["calibration_error"].on_host().compute()
    assert found["calibration_error"] == pytest.approx(error, abs=1e-7)


def test_an_impossible_class_is_finite():
    task = Classification(num_classes=2)
    batch = {"label": jnp.array([1]), "weight": jnp.ones(1), "index": jnp.zeros(1)}
    metrics = task.metrics({"logits": jnp.array([[-np.inf, 1.0]])}, batch)
    assert metrics["accuracy"].on_host().compute() == 1


@pytest.mark.parametrize("weights", [(0, 0), (0.0, 0.0)])
def test_weights_that_leave_nothing_to_learn_are_refused(weights):
    with pytest.raises(InputError, match="with only zeros nothing is learned"):
        Classification(num_classes=2, class_weights=weights)
    Classification(num_classes=2, class_weights=(0, 1))


def test_class_weights_scale_the_whole_smoothed_loss():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    weights, epsilon = np.array([0.5, 2.0, 3.0]), 0.2
    task = Classification(3, label_smoothing=epsilon, class_weights=tuple(weights))
    loss = task.losses({"logits": jnp.asarray(logits)}, {"label": jnp.asarray(label)})
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = (1 - epsilon) * np.eye(3)[label] + epsilon / 3
    expected = weights[label] * -(target * log_p).sum(axis=1)
    np.testing.assert_allclose(loss["cross_entropy"], expected, rtol=1e-6)
    # PyTorch's definition, which is not ours.
    other = -(weights * target * log_p).sum(axis=1)
    assert np.abs(other / expected - 1).max() > 0.05
