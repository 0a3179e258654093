import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.errors import InputError
from fpn_jax.train import optimizer

PARAMS = {
    "dense": {"kernel": np.float32([[0.5, -1.0], [2.0, 0.25]]), "bias": [0.1, -0.2]},
    "norm": {"scale": [1.5, 0.5], "bias": [0.3, 0.0]},
    "conv": {"kernel": np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3, 1, 1)},
}
PARAMS = jax.tree.map(np.float32, PARAMS, is_leaf=lambda x: isinstance(x, list))
TOTAL_STEPS, WARMUP_STEPS = 10, 3


def schedule_by_hand(step, peak=0.2, total=TOTAL_STEPS, warmup=WARMUP_STEPS):
    if step < warmup:
        start = peak / (warmup + 1)
        return start + (peak - start) * step / warmup
    return peak * 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))


def gradient_at(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)


def three_steps(transformation):
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = transformation.init(params)
    for step in range(3):
        gradient = jax.tree.map(jnp.asarray, gradient_at(step))
        updates, state = transformation.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def by_leaf(one_leaf):
    """Applies an update rule to each leaf, for three steps in float64."""
    gradients = [gradient_at(step) for step in range(3)]
    return jax.tree.map(
        lambda p, *g: one_leaf(p.astype(np.float64), [np.float64(a) for a in g]),
        PARAMS,
        *gradients,
    )


def assert_close(actual, expected):
    jax.tree.map(
        # In float32, 1 − 0.999 equals 0.001 to five digits.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5),
        actual,
        expected,
    )


def test_schedule_rises_to_its_peak_and_falls_to_zero():
    schedule = optimizer.warmup_cosine(0.2, TOTAL_STEPS, WARMUP_STEPS)
    actual = [float(schedule(step)) for step in range(TOTAL_STEPS + 1)]
    expected = [schedule_by_hand(step) for step in range(TOTAL_STEPS + 1)]
    np.testing.assert_allclose(actual, expected, atol=1e-7)
    assert actual[0] == pytest.approx(0.05)
    assert actual[WARMUP_STEPS] == max(actual) == pytest.approx(0.2)
    assert actual[TOTAL_STEPS - 1] > 0
    assert actual[TOTAL_STEPS] == pytest.approx(0, abs=1e-8)


def test_schedule_without_warm_up_begins_at_its_peak():
    schedule = optimizer.warmup_cosine(0.2, 1, 0)
    assert float(schedule(0)) == pytest.approx(0.2)
    assert float(schedule(1)) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("warmup_steps", [-1, 10, 11])
def test_a_warm_up_longer_than_the_run_is_refused(warmup_steps):
    with pytest.raises(
        InputError, match=rf"warmup_steps is {warmup_steps}.*the 10 steps"
    ):
        optimizer.warmup_cosine(0.1, 10, warmup_steps)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_its_formula(nesterov):
    def one_leaf(p, gradients):
        velocity = np.zeros_like(p)
        for step, g in enumerate(gradients):
            if p.ndim > 1:
                g = g + 0.01 * p
            velocity = g + 0.8 * velocity
            direction = g + 0.8 * velocity if nesterov else velocity
            p = p - schedule_by_hand(step) * direction
        return p

    transformation, _ = optimizer.build(
        "sgd",
        learning_rate=0.2,
        total_steps=TOTAL_STEPS,
        warmup_steps=WARMUP_STEPS,
        weight_decay=0.01,
        momentum=0.8,
        nesterov=nesterov,
    )
    assert_close(three_steps(transformation), by_leaf(one_leaf))


@pytest.mark.parametrize("nesterov", [False, True])
def test_adamw_equals_its_formula(nesterov):
    def one_leaf(p, gradients):
        m, v = np.zeros_like(p), np.zeros_like(p)
        for step, g in enumerate(gradients):
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g * g
            m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            if nesterov:
                ahead = 0.9 * m / (1 - 0.9 ** (step + 2))
                m_hat = ahead + 0.1 * g / (1 - 0.9 ** (step + 1))
            decay = 0.05 * p if p.ndim > 1 else 0
            p = p - schedule_by_hand(step) * (m_hat / (np.sqrt(v_hat) + 1e-8) + decay)
        return p

    transformation, _ = optimizer.build(
        "adamw",
        learning_rate=0.2,
        total_steps=TOTAL_STEPS,
        warmup_steps=WARMUP_STEPS,
        weight_decay=0.05,
        nesterov=nesterov,
    )
    assert_close(three_steps(transformation), by_leaf(one_leaf))


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_weight_decay_changes_only_kernels(name):
    transformation, _ = optimizer.build(
        name, learning_rate=0.2, total_steps=10, weight_decay=0.1
    )
    zero = jax.tree.map(np.zeros_like, PARAMS)
    updates, _ = transformation.update(zero, transformation.init(PARAMS), PARAMS)
    expected = jax.tree.map(
        lambda p: -0.2 * 0.1 * p if p.ndim > 1 else np.zeros_like(p), PARAMS
    )
    assert_close(updates, expected)
    np.testing.assert_array_equal(updates["norm"]["scale"], 0)
    np.testing.assert_array_equal(updates["dense"]["bias"], 0)


def test_clipping_scales_the_whole_gradient_to_the_norm():
    def sgd(clip_norm):
        transformation, _ = optimizer.build(
            "sgd", learning_rate=1.0, total_steps=10, clip_norm=clip_norm
        )
        return transformation.update(
            gradient_at(0), transformation.init(PARAMS), PARAMS
        )[0]

    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient_at(0))))
    scaled = jax.tree.map(lambda g: -g * 0.5 / norm, gradient_at(0))
    whole = jax.tree.map(np.negative, gradient_at(0))
    assert norm > 0.5
    assert_close(sgd(0.5), scaled)
    assert_close(sgd(2 * float(norm)), whole)
    assert_close(sgd(0.0), whole)


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(InputError, match=r"'adamm' is unknown.*'adamw'.*sgd"):
        optimizer.build("adamm", learning_rate=0.1, total_steps=10)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("clip_norm", -1.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(key, value):
    arguments = {"learning_rate": 0.1, "total_steps": 10} | {key: value}
    with pytest.raises(InputError, match=rf"optimizer\.{key} is {value}; it must "):
        optimizer.build("sgd", **arguments)
