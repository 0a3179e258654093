import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.metrics.sums import Accuracy, Confusion, Mean
from fpn_jax.train import parallel, steps
from fpn_jax.train.evaluation import evaluate

RECORDS, BATCH, FEATURES = 37, 16, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(RECORDS, FEATURES)).astype(np.float32)
LABELS = RNG.integers(0, 2, RECORDS).astype(np.int32)
KERNEL = RNG.normal(size=(FEATURES, 2)).astype(np.float32)


def apply(variables, images, *, train):
    assert not train
    logits = images @ variables["kernel"]
    return {"logits": logits, "first": logits[:, 0]}


def metrics(predictions, batch):
    logits, label, weight = predictions["logits"], batch["label"], batch["weight"]
    return {
        "accuracy": Accuracy.of(logits.argmax(-1), label, weight),
        "first": Mean.of(predictions["first"], weight),
        "confusion": Confusion.of(logits.argmax(-1), label, weight, 2),
    }


def keep(predictions, batch):
    return {"label": batch["label"]} | predictions


def batches(order, padding):
    """Cuts the records in an order; the last batch is filled up with padding."""
    padded = np.concatenate([order, np.full(-len(order) % BATCH, -1)])
    for rows in padded.reshape(-1, BATCH):
        real = rows >= 0
        yield {
            "image": np.where(real[:, None], IMAGES[rows], padding).astype(np.float32),
            "label": np.where(real, LABELS[rows], 0).astype(np.int32),
            "weight": real.astype(np.float32),
            "index": rows.astype(np.int32),
        }


@pytest.fixture(scope="module")
def eval_step():
    return parallel.map_eval_step(steps.make_eval_step(apply, metrics, keep))


@pytest.fixture(scope="module")
def variables():
    return parallel.replicate({"kernel": jnp.asarray(KERNEL)})


@pytest.mark.parametrize("padding", [0.0, 100.0, np.nan])
def test_a_split_that_batches_do_not_divide_equals_a_plain_count(
    eval_step, variables, padding
):
    evaluation = evaluate(eval_step, variables, batches(np.arange(RECORDS), padding))
    logits = IMAGES @ KERNEL
    right = [int(np.argmax(row)) for row in logits] == LABELS
    counts = np.zeros((2, 2), int)
    for row, label in zip(logits, LABELS, strict=True):
        counts[label, np.argmax(row)] += 1
    scalars = evaluation.scalars()
    assert scalars.keys() == {"accuracy", "first"}
    assert scalars["accuracy"] == sum(right) / RECORDS
    assert scalars["first"] == pytest.approx(logits[:, 0].mean(), rel=1e-5)
    assert evaluation.metrics["confusion"].compute() == counts.tolist()


def test_rows_are_sorted_by_index_and_without_padding(eval_step, variables):
    order = np.random.default_rng(1).permutation(RECORDS)
    evaluation = evaluate(eval_step, variables, batches(order, 5.0))
    rows = evaluation.rows
    assert rows.keys() == {"index", "label", "logits", "first"}
    np.testing.assert_array_equal(rows["index"], np.arange(RECORDS))
    np.testing.assert_array_equal(rows["label"], LABELS)
    np.testing.assert_allclose(rows["logits"], IMAGES @ KERNEL, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows["first"], rows["logits"][:, 0])


def test_the_order_of_records_changes_no_metric(eval_step, variables):
    forward = evaluate(eval_step, variables, batches(np.arange(RECORDS), 0.0))
    backward = evaluate(eval_step, variables, batches(np.arange(RECORDS)[::-1], 0.0))
    assert backward.scalars()["accuracy"] == forward.scalars()["accuracy"]
    assert backward.scalars()["first"] == pytest.approx(
        forward.scalars()["first"], rel=1e-6
    )


def test_no_batches_have_no_metrics(eval_step, variables):
    with pytest.raises(ValueError, match="no batches"):
        evaluate(eval_step, variables, [])
