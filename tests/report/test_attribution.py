import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.report import attribution

SHAPES = {2: (2, 8, 6, 5), 3: (2, 4, 3, 5), 5: (2, 1, 1, 5)}


def features(variables, images):
    return {level: images.mean() * p for level, p in variables["pyramid"].items()}


def flatten_head(variables, pyramid):
    logits = sum(
        jnp.einsum("bhwc,hwck->bk", pyramid[level], variables["weights"][level])
        for level in pyramid
    )
    return logits + variables["bias"]


def average_pool_head(variables, pyramid):
    pooled = jnp.concatenate([p.mean((1, 2)) for p in pyramid.values()], axis=-1)
    return pooled @ variables["weights"] + variables["bias"]


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "pyramid": {level: draw(*shape) for level, shape in SHAPES.items()},
        "weights": {level: draw(*shape[1:], 3) for level, shape in SHAPES.items()},
        "bias": draw(3),
    }


IMAGES = jnp.ones((2, 32, 24, 3))
TARGET = jnp.array([2, 0])


def maps_of(head, variables, images=IMAGES, target=TARGET):
    """Returns the heat maps of the logit of a target class."""

    def evidence(variables, pyramid):
        logits = head(variables, pyramid)
        return jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]

    return attribution.heat_maps(features, evidence, variables, images)


def scaled(evidence):
    evidence = np.maximum(evidence, 0)
    peak = evidence.max(axis=(1, 2), keepdims=True)
    return evidence / np.where(peak > 0, peak, 1)


def test_flatten_head_shows_the_contribution_of_each_cell(variables):
    maps = maps_of(flatten_head, variables)
    assert list(maps) == [2, 3, 5]
    for level, heat in maps.items():
        weights = np.asarray(variables["weights"][level])[..., np.asarray(TARGET)]
        activation = np.asarray(variables["pyramid"][level])
        expected = np.einsum("bhwc,hwcb->bhw", activation, weights)
        np.testing.assert_allclose(heat, scaled(expected), atol=1e-5)


def test_average_pool_head_gives_the_class_activation_map(variables):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(15, 3)).astype(np.float32)
    variables = {**variables, "weights": jnp.asarray(weights)}
    maps = maps_of(average_pool_head, variables)
    for position, (level, heat) in enumerate(maps.items()):
        of_level = weights[5 * position : 5 * position + 5]
        activation = np.asarray(variables["pyramid"][level])
        expected = np.stack(
            [activation[b] @ of_level[:, TARGET[b]] for b in range(len(TARGET))]
        )
        np.testing.assert_allclose(heat, scaled(expected), atol=1e-5)


def test_maps_of_a_flatten_head_are_right_if_weights_sum_to_zero():
    # The weights left and right are opposite, so Grad-CAM's weight, the mean, is 0.
    weights = jnp.array([[[[1.0]], [[-1.0]]]])
    variables = {
        "pyramid": {3: jnp.array([[[[2.0], [-1.0]]]])},
        "weights": {3: weights},
        "bias": jnp.zeros(1),
    }
    target = jnp.zeros(1, jnp.int32)
    images = jnp.ones((1, 8, 16, 3))
    maps = maps_of(flatten_head, variables, images, target)
    np.testing.assert_allclose(maps[3], [[[1.0, 0.5]]], atol=1e-6)


def test_maps_without_evidence_are_zero_and_not_nan(variables):
    pyramid = jax.tree.map(jnp.zeros_like, variables["pyramid"])
    variables = {**variables, "pyramid": pyramid}
    maps = maps_of(flatten_head, variables)
    assert all((np.asarray(heat) == 0).all() for heat in maps.values())


def test_maps_under_jit_and_bfloat16_are_float32_from_0_to_1(variables):
    halves = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables)
    compute = jax.jit(functools.partial(maps_of, flatten_head))
    maps = compute(halves, IMAGES.astype(jnp.bfloat16))
    for level, heat in maps.items():
        assert heat.shape == SHAPES[level][:3]
        assert heat.dtype == jnp.float32
        assert 0 <= heat.min() <= heat.max() <= 1 + 1e-6
