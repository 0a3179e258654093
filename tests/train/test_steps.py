import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.metrics.sums import Accuracy
from fpn_jax.ops.losses import cross_entropy
from fpn_jax.train import parallel, state, steps

DEVICES, BATCH = 8, 32
LEARNING_RATE, EMA_DECAY = 0.5, 0.3


class Tiny(nn.Module):
    norm: bool = False

    @nn.compact
    def __call__(self, images, *, train):
        x = images.reshape(images.shape[0], -1).astype(jnp.float32)
        x = nn.Dense(4, name="hidden")(x)
        if self.norm:
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                axis_name=steps.AXIS,
                name="norm",
            )(x)
        return {"logits": nn.Dense(2, name="logits")(jnp.tanh(x))}


def losses(predictions, batch):
    return {"ce": cross_entropy(predictions["logits"], batch["label"])}


def batch_at(step, size=BATCH):
    rng = np.random.default_rng(step)
    return {
        "image": rng.normal(size=(size, 2, 2, 1)).astype(np.float32),
        "label": rng.integers(0, 2, size).astype(np.int32),
        # The weights of replicas differ much, so that a mean of means would be wrong.
        "weight": np.sort(rng.uniform(0.1, 5, size)).astype(np.float32),
    }


def first_state(norm=False, with_ema=False):
    image = jnp.zeros((1, 2, 2, 1))

    def init(rng):
        return Tiny(norm).init(rng, image, train=False)

    made = state.create(init, sgd(), seed=3, with_ema=with_ema)
    return parallel.replicate(made)


def sgd():
    return optax.sgd(LEARNING_RATE, momentum=0.9)


@functools.cache
def train_step(norm=False, accumulation_steps=1, mix=None, with_ema=False):
    return parallel.map_train_step(
        steps.make_train_step(
            Tiny(norm).apply,
            losses,
            sgd(),
            mix=mix,
            accumulation_steps=accumulation_steps,
            ema_decay=EMA_DECAY if with_ema else 0.0,
        )
    )


def on_host(tree):
    return jax.tree.map(np.array, tree)


def forward(params, images, norm):
    """Computes `Tiny` in training on a full batch; returns the statistics, too."""
    x = images.reshape(len(images), -1)
    x = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    mean, var = jnp.mean(x, 0), jnp.var(x, 0)
    if norm:
        x = (x - mean) / jnp.sqrt(var + 1e-5)
        x = x * params["norm"]["scale"] + params["norm"]["bias"]
    x = jnp.tanh(x)
    logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]
    return jax.nn.log_softmax(logits), mean, var


def weighted_mean_loss(params, batch, norm):
    log_p, mean, var = forward(params, batch["image"], norm)
    of_label = jnp.take_along_axis(log_p, batch["label"][:, None], 1)[:, 0]
    weight = batch["weight"]
    return -jnp.sum(weight * of_label) / jnp.sum(weight), (mean, var)


# The definition of the gradient, computed on the full batch without the tested step.
reference_gradient = jax.jit(
    jax.value_and_grad(weighted_mean_loss, has_aux=True), static_argnums=2
)


def reference_run(params, batches, norm):
    velocity = jax.tree.map(np.zeros_like, params)
    statistics = {"mean": np.zeros(4), "var": np.ones(4)}
    losses, norms, trail = [], [], []
    for batch in batches:
        (value, (mean, var)), gradient = reference_gradient(params, batch, norm)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p - LEARNING_RATE * v, params, velocity)
        statistics = {
            "mean": 0.9 * statistics["mean"] + 0.1 * mean,
            "var": 0.9 * statistics["var"] + 0.1 * var,
        }
        losses.append(float(value))
        squares = [np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)]
        norms.append(float(np.sqrt(np.sum(squares))))
        trail.append(on_host(params))
    return trail, statistics, losses, norms


def run(step_fn, current, batches):
    losses, norms, trail = [], [], []
    for batch in batches:
        current, metrics = step_fn(current, parallel.shard(batch))
        losses.append(metrics["loss"].on_host().compute())
        norms.append(float(metrics["gradient_norm"]))
        trail.append(on_host(current.variables))
    return current, losses, norms, trail


def assert_trees_close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected
    )


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def five_steps_with_norm():
    """Runs five steps with BatchNorm and a moving average, on eight devices."""
    start = first_state(norm=True, with_ema=True)
    before = on_host(start.variables)
    batches = [batch_at(step) for step in range(5)]
    end, losses, norms, trail = run(train_step(True, with_ema=True), start, batches)
    return before, batches, end, losses, norms, trail


def test_eight_devices_equal_one_full_batch_with_batch_norm(five_steps_with_norm):
    before, batches, end, losses, norms, trail = five_steps_with_norm
    expected, statistics, expected_losses, expected_norms = reference_run(
        before["params"], batches, True
    )
    np.testing.assert_allclose(losses, expected_losses, **CLOSE)
    np.testing.assert_allclose(norms, expected_norms, **CLOSE)
    assert_trees_close([row["params"] for row in trail], expected, **CLOSE)
    assert_trees_close(on_host(end.batch_stats)["norm"], statistics, **CLOSE)
    assert int(end.step) == 5
    assert min(abs(a - b) for a, b in itertools.pairwise(losses)) > 1e-3


def test_every_device_has_the_same_state(five_steps_with_norm):
    end = five_steps_with_norm[2]
    for leaf in jax.tree.leaves((end.params, end.batch_stats, end.opt_state, end.ema)):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == DEVICES
        for other in shards[1:]:
            np.testing.assert_array_equal(shards[0], other)


def test_the_moving_average_equals_a_loop_over_the_ramp(five_steps_with_norm):
    before, _, end, _, _, trail = five_steps_with_norm
    average = before
    for taken, variables in enumerate(trail, 1):
        decay = min(EMA_DECAY, (1 + taken) / (10 + taken))
        average = jax.tree.map(
            lambda a, b, d=decay: d * a + (1 - d) * b, average, variables
        )
    # The ramp of the decay ends within the five steps.
    assert (1 + 1) / (10 + 1) < EMA_DECAY < (1 + 5) / (10 + 5)
    assert_trees_close(on_host(end.ema), average, rtol=1e-5, atol=1e-6)
    assert end.eval_variables is end.ema
    assert end.replace(ema=None).eval_variables == end.variables


def test_the_moving_average_starts_as_a_separate_copy():
    start = first_state(norm=True, with_ema=True)
    assert_trees_close(on_host(start.ema), on_host(start.variables), rtol=0)
    pairs = zip(
        jax.tree.leaves(start.ema), jax.tree.leaves(start.variables), strict=True
    )
    for average, trained in pairs:
        assert average is not trained
        assert (
            average.addressable_shards[0].data.unsafe_buffer_pointer()
            != trained.addressable_shards[0].data.unsafe_buffer_pointer()
        )


def test_the_state_is_donated_and_its_key_does_not_change():
    start = first_state()
    key = jax.random.key_data(start.rng).copy()
    end, _ = train_step()(start, parallel.shard(batch_at(0)))
    for leaf in jax.tree.leaves((start.params, start.opt_state)):
        assert leaf.is_deleted()
    np.testing.assert_array_equal(jax.random.key_data(end.rng), key)


def test_a_model_without_batch_norm_has_no_statistics():
    start = first_state()
    params = on_host(start.params)
    batches = [batch_at(step) for step in range(2)]
    end, losses, _, trail = run(train_step(), start, batches)
    expected, _, expected_losses, _ = reference_run(params, batches, False)
    assert end.batch_stats == {}
    np.testing.assert_allclose(losses, expected_losses, **CLOSE)
    assert_trees_close(trail[-1]["params"], expected[-1], **CLOSE)


@pytest.mark.parametrize("accumulation_steps", [2, 4])
def test_accumulated_slices_equal_the_full_batch(accumulation_steps):
    batches = [batch_at(step) for step in range(2)]
    _, losses, norms, trail = run(train_step(), first_state(), batches)
    cut = train_step(accumulation_steps=accumulation_steps)
    _, cut_losses, cut_norms, cut_trail = run(cut, first_state(), batches)
    np.testing.assert_allclose(cut_losses, losses, rtol=1e-5)
    np.testing.assert_allclose(cut_norms, norms, rtol=1e-5)
    assert_trees_close(cut_trail, trail, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e30])
def test_padding_with_any_values_changes_nothing(padding):
    batch = batch_at(0)
    padded = np.arange(BATCH) % 5 == 0
    batch["weight"][padded] = 0
    batch["image"][padded] = padding
    batch["label"][padded] = 77
    real = {key: value[~padded] for key, value in batch.items()}
    start = first_state()
    params = on_host(start.params)
    _, losses, norms, trail = run(train_step(), start, [batch])
    expected, _, expected_losses, expected_norms = reference_run(params, [real], False)
    np.testing.assert_allclose(losses, expected_losses, **CLOSE)
    np.testing.assert_allclose(norms, expected_norms, **CLOSE)
    assert_trees_close(trail[-1]["params"], expected[-1], **CLOSE)


OWN = np.float32([0.9, 0.3, 0.5, 1.0])


def fixed_mix(rng, images):
    assert images.dtype == jnp.float32
    own = OWN[:, None, None, None]
    return own * images + (1 - own) * images[::-1], jnp.array([3, 2, 1, 0]), OWN


def test_the_loss_of_a_mixed_image_uses_both_labels():
    batch = batch_at(0) | {
        "image": np.random.default_rng(9).integers(0, 4, (BATCH, 2, 2, 1), np.uint8)
    }
    start = first_state()
    params = on_host(start.params)
    _, losses, _, _ = run(train_step(mix=fixed_mix), start, [batch])
    # Each device has four examples, and partners are on the same device.
    own = np.tile(OWN, DEVICES)
    partners = np.arange(BATCH).reshape(DEVICES, 4)[:, ::-1].ravel()
    images = batch["image"].astype(np.float32)
    blend = own[:, None, None, None]
    log_p = forward(params, blend * images + (1 - blend) * images[partners], False)[0]
    log_p, rows = np.asarray(log_p), np.arange(BATCH)
    label = batch["label"]
    mixed = own * log_p[rows, label] + (1 - own) * log_p[rows, label[partners]]
    expected = -np.sum(mixed * batch["weight"]) / np.sum(batch["weight"])
    assert np.any(label != label[partners])
    np.testing.assert_allclose(losses, [expected], rtol=1e-5)


def test_the_evaluation_step_sums_metrics_and_keeps_the_order_of_rows():
    def metrics(predictions, batch):
        logits, label = predictions["logits"], batch["label"]
        predicted = logits.argmax(-1)
        return {"accuracy": Accuracy.of(predicted, label, batch["weight"])}

    def keep(predictions, batch):
        return {"logits": predictions["logits"]}

    variables = first_state(norm=True).eval_variables
    step_fn = parallel.map_eval_step(
        steps.make_eval_step(Tiny(True).apply, metrics, keep)
    )
    batch = batch_at(0)
    summed, rows = step_fn(variables, parallel.shard(batch))
    expected = Tiny(True).apply(on_host(variables), batch["image"], train=False)
    logits = np.asarray(rows["logits"])
    assert logits.shape == (DEVICES, BATCH // DEVICES, 2)
    logits = logits.reshape(BATCH, 2)
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-5, atol=1e-6)
    right = logits.argmax(1) == batch["label"]
    assert float(summed["accuracy"].total) == pytest.approx(
        np.sum(right * batch["weight"]), rel=1e-6
    )
    assert float(summed["accuracy"].weight) == pytest.approx(
        np.sum(batch["weight"]), rel=1e-6
    )


def test_create_works_under_eval_shape():
    params = {"params": {"a": jnp.ones((2, 3))}}

    def create():
        return state.create(lambda _: params, sgd(), seed=0, with_ema=True)

    like, made = jax.eval_shape(create), create()
    assert jax.tree.structure(like) == jax.tree.structure(made)
    assert jax.tree.map(jnp.shape, like) == jax.tree.map(jnp.shape, made)
    assert made.step.dtype == jnp.int32
    assert jnp.issubdtype(made.rng.dtype, jax.dtypes.prng_key)


def test_a_nonfinite_step_changes_only_the_step_number():
    """Trains on a good batch, a batch with a NaN, and a good batch."""
    step = parallel.map_train_step(
        steps.make_train_step(
            Tiny(norm=True).apply,
            losses,
            sgd(),
            ema_decay=EMA_DECAY,
            skip_nonfinite=True,
        )
    )
    bad = batch_at(1)
    bad["image"][3, 0, 0, 0] = np.nan
    after_good, _ = step(first_state(True, True), parallel.shard(batch_at(0)))
    before = on_host(after_good.replace(rng=None))
    after_bad, metrics = step(after_good, parallel.shard(bad))
    assert np.isnan(metrics["loss"].compute())
    assert int(after_bad.step) == 2
    jax.tree.map(
        np.testing.assert_array_equal,
        on_host(after_bad.replace(rng=None, step=before.step)),
        before,
    )
    after_next, metrics = step(after_bad, parallel.shard(batch_at(2)))
    assert np.isfinite(metrics["loss"].compute())
    assert int(after_next.step) == 3
    changed = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), on_host(after_next.params), before.params
    )
    assert all(jax.tree.leaves(changed))


def test_skip_nonfinite_does_not_change_finite_steps():
    skipping = parallel.map_train_step(
        steps.make_train_step(Tiny().apply, losses, sgd(), skip_nonfinite=True)
    )
    batch = parallel.shard(batch_at(0))
    ours, _ = skipping(first_state(), batch)
    plain, _ = train_step()(first_state(), batch)
    jax.tree.map(np.testing.assert_array_equal, on_host(ours.params), plain.params)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_several_losses_are_summed_and_each_is_returned(accumulation_steps):
    def two(predictions, batch):
        cross_entropy = losses(predictions, batch)["ce"]
        return {"ce": 0.25 * cross_entropy, "rest": 0.75 * cross_entropy}

    options = {"accumulation_steps": accumulation_steps}
    both = parallel.map_train_step(
        steps.make_train_step(Tiny().apply, two, sgd(), **options)
    )
    batch = parallel.shard(batch_at(0))
    expected, one = train_step(accumulation_steps=accumulation_steps)(
        first_state(), batch
    )
    actual, metrics = both(first_state(), batch)
    assert one["losses"] == {}
    total = metrics["loss"].on_host().compute()
    parts = {k: mean.on_host().compute() for k, mean in metrics["losses"].items()}
    assert total == pytest.approx(one["loss"].on_host().compute(), rel=1e-6)
    assert parts == pytest.approx({"ce": 0.25 * total, "rest": 0.75 * total}, rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        on_host(actual.params),
        on_host(expected.params),
    )
