"""Landmarks: errors in distances of the eyes, visibility, heat maps and coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import heat_maps
from fpn_jax.tasks.landmarks import LandmarkHeatMaps, LandmarkPoints

SIZE, MAP = (64, 128), (16, 32)
"""Height and width; not equal, so that a swap would show."""
K = 4


def batch(hidden=((1, 3),), seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform((20, 16), (110, 50), (3, K, 2))
    visible = np.ones((3, K, 1))
    for row, index in hidden:
        visible[row, index] = 0
    return {
        "image": np.zeros((3, *SIZE, 3), np.uint8),
        "landmarks": np.concatenate([points, visible], -1).astype(np.float32),
        "weight": np.ones(3, np.float32),
    }


def perfect(task, made):
    points = jnp.asarray(made["landmarks"][..., :2])
    logits = np.where(made["landmarks"][..., 2] > 0, 20.0, -20.0)
    found = {"visibility_logits": jnp.asarray(logits, jnp.float32)}
    if isinstance(task, LandmarkHeatMaps):
        cells = heat_maps.to_cells(points, SIZE, MAP)
        maps = heat_maps.gaussians(cells, MAP, task.sigma)
        if task.loss == "cross_entropy":
            maps = jnp.log(jnp.maximum(maps, 1e-30))
        return found | {"heat_maps": maps}
    return found | {"points": points / jnp.array(SIZE[::-1], jnp.float32)}


def computed(metrics):
    return {name: metric.on_host().compute() for name, metric in metrics.items()}


def summarized(task, found, made):
    rows = task.keep(task.decode(found, SIZE), made)
    return task.summarize({name: np.asarray(row) for name, row in rows.items()})


SQUARED = LandmarkHeatMaps(K, loss="squared")
both = pytest.mark.parametrize(
    "task", [LandmarkHeatMaps(K), SQUARED, LandmarkPoints(K)]
)


@both
def test_the_truth_as_prediction_has_no_error(task):
    made = batch()
    scores = computed(task.metrics(perfect(task, made), made))
    assert scores["nme"] < 0.02
    assert scores["failure_rate"] == 0
    assert scores["points_found"] == scores["visibility_accuracy"] == 1
    summary = summarized(task, perfect(task, made), made)
    assert summary["median_error"] < 0.02
    assert set(scores | summary) == set(task.definitions)
    if task.loss != "cross_entropy":
        assert scores["loss"] < 1e-4


def test_errors_are_those_of_a_loop():
    task, made = LandmarkPoints(K), batch()
    rng = np.random.default_rng(3)
    moved = made["landmarks"][..., :2] + rng.normal(0, 4, (3, K, 2))
    found = perfect(task, made) | {
        "points": jnp.asarray(moved / SIZE[::-1], jnp.float32)
    }
    errors = []
    for guess, truth in zip(moved, made["landmarks"], strict=True):
        eyes = np.linalg.norm(truth[0, :2] - truth[1, :2])
        distance = np.linalg.norm(guess - truth[:, :2], axis=1) / eyes
        errors.append(distance[truth[:, 2] > 0])
    scores = computed(task.metrics(found, made))
    means = [error.mean() for error in errors]
    np.testing.assert_allclose(scores["nme"], np.mean(means), rtol=1e-4)
    median = summarized(task, found, made)["median_error"]
    np.testing.assert_allclose(median, np.median(means), rtol=1e-4)
    failed = np.mean([mean > 0.1 for mean in means])
    np.testing.assert_allclose(scores["failure_rate"], failed, rtol=1e-6)
    near = np.mean(np.concatenate(errors) <= 0.1)
    np.testing.assert_allclose(scores["points_found"], near, rtol=1e-6)


@both
def test_a_point_that_is_not_visible_changes_nothing_even_if_it_is_nan(task):
    made, other = batch(), batch()
    other["landmarks"][1, 3, :2] = np.nan
    found = perfect(task, batch(hidden=(), seed=8))

    def total(predictions, made):
        losses = task.losses(predictions, made)
        return sum(loss.sum() for loss in losses.values())

    for one, two in zip(
        jax.tree.leaves(jax.value_and_grad(total)(found, made)),
        jax.tree.leaves(jax.value_and_grad(total)(found, other)),
        strict=True,
    ):
        assert np.isfinite(two).all()
        np.testing.assert_array_equal(one, two)
    before, after = (computed(task.metrics(found, m)) for m in (made, other))
    assert before == after


@both
def test_an_image_without_a_visible_point_does_not_count(task):
    made = batch(hidden=[(0, k) for k in range(K)])
    found = perfect(task, made)
    scores = computed(task.metrics(found, made))
    assert scores["nme"] < 0.02
    assert summarized(task, found, made)["median_error"] < 0.02
    losses = task.losses(found, made)
    assert losses["points"][0] == 0
    made["weight"][1:] = 0
    assert np.isnan(computed(task.metrics(found, made))["nme"])
    blind = batch(hidden=[(image, k) for image in range(3) for k in range(K)])
    assert np.isnan(summarized(task, found, blind)["median_error"])


def test_a_predicted_place_that_is_nan_is_wrong():
    task, made = LandmarkPoints(K), batch(hidden=())
    found = perfect(task, made)
    found["points"] = found["points"].at[0, 2].set(jnp.nan)
    scores = computed(task.metrics(found, made))
    np.testing.assert_allclose(scores["failure_rate"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(scores["points_found"], 11 / 12, rtol=1e-6)
    assert scores["nme"] == np.inf
    assert summarized(task, found, made)["median_error"] < 0.02
    every = found | {"points": jnp.full_like(found["points"], jnp.nan)}
    assert summarized(task, every, made)["median_error"] == np.inf


@both
def test_eyes_at_one_place_do_not_count(task):
    made = batch()
    made["landmarks"][0, 1] = made["landmarks"][0, 0]
    found = perfect(task, made)
    assert np.isfinite(computed(task.metrics(found, made))["nme"])
    rows = task.keep(task.decode(found, SIZE), made)
    assert np.isnan(rows["error"][0]).all()
    assert np.isfinite(rows["error"][2]).all()


@both
def test_answers_are_in_pixels(task):
    made = batch()
    answer = task.decode(perfect(task, made), SIZE)
    np.testing.assert_allclose(
        answer["landmarks"][..., :2], made["landmarks"][..., :2], atol=0.2
    )
    np.testing.assert_array_equal(
        answer["landmarks"][..., 2], made["landmarks"][..., 2]
    )


def test_the_loss_of_heat_maps_is_the_summed_squared_error():
    task = LandmarkHeatMaps(K, visibility_weight=0.0, loss="squared")
    made = batch(hidden=())
    right = perfect(task, made)
    wrong = right | {"heat_maps": right["heat_maps"] + 0.1}
    losses = task.losses(wrong, made)
    np.testing.assert_allclose(losses["points"], 0.01 * 16 * 32, rtol=1e-4)
    assert not np.any(losses["visibility"])


def test_the_cross_entropy_of_heat_maps_is_that_of_a_loop_and_least_at_the_truth():
    task, made = LandmarkHeatMaps(K, visibility_weight=0.0), batch(hidden=())
    right = perfect(task, made)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, right["heat_maps"].shape).astype(np.float32)
    losses = task.losses(right | {"heat_maps": noise}, made)["points"]
    for row in range(3):
        terms = []
        for k in range(K):
            logits = noise[row, :, :, k].astype(np.float64)
            target = np.exp(np.asarray(right["heat_maps"], np.float64)[row, :, :, k])
            log_p = logits - np.log(np.exp(logits).sum())
            terms.append(-(target / target.sum() * log_p).sum())
        np.testing.assert_allclose(losses[row], np.mean(terms), rtol=1e-4)
    least = task.losses(right, made)["points"]
    for scale in (0.5, 2.0):
        other = right | {"heat_maps": scale * right["heat_maps"]}
        assert (task.losses(other, made)["points"] > least).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"loss": "mse"}, "task.loss 'mse' is unknown; choose one of cross_entropy"),
        ({"eyes": (0, 0)}, r"task.eyes is \(0, 0\); give the numbers of two"),
        ({"eyes": (0, 4)}, "task.eyes is 4; it must be in"),
        ({"sigma": 0.0}, "task.sigma is 0.0; it must be above 0"),
        ({"visibility_weight": -1.0}, "task.visibility_weight is -1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        LandmarkHeatMaps(**({"num_landmarks": K} | arguments))


def test_an_unknown_loss_is_refused():
    with pytest.raises(InputError, match="'wings' is unknown; did you mean 'wing'"):
        LandmarkPoints(K, loss="wings")
