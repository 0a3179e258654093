import os
import pathlib

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
    """Yields batches of the records in an order; pads the last batch."""
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
def test_metrics_of_an_incomplete_last_batch_equal_a_plain_count(
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


def test_rows_are_sorted_by_index_and_exclude_padding(eval_step, variables):
    order = np.random.default_rng(1).permutation(RECORDS)
    evaluation = evaluate(eval_step, variables, batches(order, 5.0))
    rows = evaluation.rows
    assert rows.keys() == {"index", "label", "logits", "first"}
    np.testing.assert_array_equal(rows["index"], np.arange(RECORDS))
    np.testing.assert_array_equal(rows["label"], LABELS)
    np.testing.assert_allclose(rows["logits"], IMAGES @ KERNEL, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows["first"], rows["logits"][:, 0])


def test_metrics_do_not_depend_on_the_order_of_records(eval_step, variables):
    forward = evaluate(eval_step, variables, batches(np.arange(RECORDS), 0.0))
    backward = evaluate(eval_step, variables, batches(np.arange(RECORDS)[::-1], 0.0))
    assert backward.scalars()["accuracy"] == forward.scalars()["accuracy"]
    assert backward.scalars()["first"] == pytest.approx(
        forward.scalars()["first"], rel=1e-6
    )


def test_evaluating_no_batches_is_an_error(eval_step, variables):
    with pytest.raises(ValueError, match="no batches"):
        evaluate(eval_step, variables, [])


SIDE, MANY = 512, 500


def class_maps(keep):
    """Returns the evaluation step of an invented task of class maps, and batches."""

    def apply(variables, images, *, train):
        return {"map": jnp.stack([images[..., 0], images[..., 1]], -1) * 1.0}

    def metrics(predictions, batch):
        predicted = predictions["map"].argmax(-1)
        counted = Confusion.of(predicted, batch["mask"], batch["weight"], 2)
        return {"confusion": counted}

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, SIDE, SIDE, 2), np.uint8)
    mask = (image[..., 1] > image[..., 0]).astype(np.uint8)
    batches = (
        {
            "image": image,
            "mask": mask,
            "weight": np.ones(BATCH, np.float32),
            "index": np.arange(start, start + BATCH, dtype=np.int32),
        }
        for start in range(0, MANY, BATCH)
    )
    return parallel.map_eval_step(steps.make_eval_step(apply, metrics, keep)), batches


def peak_growth_mib(step, variables, batches):
    """Returns the evaluation, and the growth of the process's memory in MiB."""
    first, peak = None, 0

    def watched():
        nonlocal first, peak
        for number, batch in enumerate(batches):
            yield batch
            # The first batches compile the step and warm up the allocator.
            if number == 8:
                first = resident_mib()
            peak = max(peak, resident_mib()) if number > 8 else 0

    evaluation = evaluate(step, variables, watched())
    return evaluation, peak - first


def resident_mib():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_does_not_grow_with_predictions_that_the_task_drops():
    """Evaluates 500 class maps of 512 × 512, whose logits would need a gigabyte."""
    step, batches = class_maps(lambda predictions, batch: {})
    evaluation, growth = peak_growth_mib(step, {}, batches)
    assert evaluation.rows.keys() == {"index"}
    counts = np.array(evaluation.metrics["confusion"].compute())
    assert counts.sum() == len(evaluation.rows["index"]) * SIDE**2
    assert (counts == np.diag(np.diag(counts))).all()
    assert growth < 100


def test_memory_grows_with_rows_that_the_task_keeps():
    """Checks that the test above would detect kept maps."""
    step, batches = class_maps(
        lambda predictions, batch: {"map": predictions["map"][..., 0]}
    )
    _, growth = peak_growth_mib(step, {}, batches)
    assert growth > 300
