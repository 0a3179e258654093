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


def test_cross_entropy_of_large_logits_is_finite_and_so_is_its_gradient():
    loss = lambda x: jnp.sum(losses.cross_entropy(x, jnp.array([1])))  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(jnp.array([[1e4, -1e4]]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_the_loss_of_bf16_logits_is_float32():
    loss = losses.cross_entropy(LOGITS.astype(jnp.bfloat16), LABEL)
    assert loss.dtype == jnp.float32


def test_the_evaluated_loss_is_plain():
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
def test_refuses(arguments, says):
    with pytest.raises(InputError, match=says):
        Classification(3, **arguments)


def test_the_answer_is_the_largest_logit_and_its_softmax():
    answer = Classification(3).decode({"logits": jnp.asarray(LOGITS)}, (32, 32))
    np.testing.assert_array_equal(answer["label"], LOGITS.argmax(1))
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-5)


def test_evidence_is_the_logit_of_the_target():
    predictions = {"logits": jnp.asarray(LOGITS)}
    actual = Classification(3).evidence(predictions, jnp.asarray(LABEL))
    np.testing.assert_array_equal(actual, LOGITS[np.arange(5), LABEL])
