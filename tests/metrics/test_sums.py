import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.metrics import sums

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(37, 3)).astype(np.float32) * 3
LABEL = RNG.integers(0, 3, 37)
WEIGHT = np.ones(37, np.float32)


def of(name, logits, label, weight):
    if name == "Mean":
        return sums.Mean.of(jnp.asarray(logits[:, 0]), weight)
    predicted, label = jnp.argmax(logits, axis=-1), jnp.asarray(label)
    if name == "Accuracy":
        return sums.Accuracy.of(predicted, label, weight)
    if name == "Confusion":
        return sums.Confusion.of(predicted, label, weight, num_classes=3)
    confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
    return sums.Calibration.of(confidence, predicted == label, weight)


def test_accuracy_and_confusion_equal_a_plain_count():
    right = sum(int(np.argmax(row)) == y for row, y in zip(LOGITS, LABEL, strict=True))
    assert of("Accuracy", LOGITS, LABEL, WEIGHT).compute() == pytest.approx(right / 37)
    counts = np.zeros((3, 3), int)
    for row, y in zip(LOGITS, LABEL, strict=True):
        counts[y, np.argmax(row)] += 1
    assert of("Confusion", LOGITS, LABEL, WEIGHT).compute() == counts.tolist()


def test_calibration_equals_a_loop_over_bins():
    probabilities = np.asarray(jax.nn.softmax(LOGITS))
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = (predicted == LABEL)[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    actual = of("Calibration", LOGITS, LABEL, WEIGHT).compute()
    assert actual == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["Mean", "Accuracy", "Confusion", "Calibration"])
def test_metrics_do_not_depend_on_the_split_into_padded_batches(name):
    whole = of(name, LOGITS, LABEL, WEIGHT).on_host().compute()
    merged = None
    for start in range(0, 37, 16):
        logits, label, weight = (a[start : start + 16] for a in (LOGITS, LABEL, WEIGHT))
        pad = 16 - len(label)
        logits = np.pad(logits, ((0, pad), (0, 0)), constant_values=7.0)
        part = of(name, logits, np.pad(label, (0, pad)), np.pad(weight, (0, pad)))
        merged = part.on_host() if merged is None else merged.merge(part.on_host())
    np.testing.assert_allclose(merged.compute(), whole, atol=1e-6)


def test_padding_values_are_ignored_and_no_examples_give_nan():
    values, weight = jnp.array([1.0, jnp.nan]), jnp.array([1.0, 0.0])
    assert sums.Mean.of(values, weight).compute() == 1.0
    assert np.isnan(sums.Mean.of(values, 0 * weight).compute())


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 3, 5), (3, 4, 4)])
def test_labels_of_any_shape_use_the_weight_of_their_example(shape):
    """Tests one label per pixel, also if a map is as wide as the batch size."""
    rng = np.random.default_rng(1)
    label, predicted = rng.integers(0, 3, (2, *shape)).astype(np.uint8)
    weight = rng.integers(0, 3, shape[0]).astype(np.float32)
    counts, right, total = np.zeros((3, 3)), 0.0, 0.0
    for example in range(shape[0]):
        for y, p in zip(label[example].flat, predicted[example].flat, strict=True):
            counts[y, p] += weight[example]
            right += weight[example] * (y == p)
            total += weight[example]
    confusion = sums.Confusion.of(predicted, label, jnp.asarray(weight), 3)
    assert confusion.compute() == counts.astype(int).tolist()
    accuracy = sums.Accuracy.of(predicted, label, jnp.asarray(weight))
    assert accuracy.compute() == pytest.approx(right / total)


def test_an_ignored_label_with_weight_zero_is_not_counted():
    label = np.array([[0, 255], [1, 255]], np.uint8)
    predicted = np.array([[0, 1], [0, 1]])
    weight = jnp.asarray((label != 255).astype(np.float32))
    confusion = sums.Confusion.of(predicted, label, weight, 2)
    assert confusion.compute() == [[1, 0], [1, 0]]
