"""Distances, masks of pairs, and the limits of the losses of embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.ops import metric_learning as ml


def test_equal_and_near_vectors_have_finite_gradients():
    # Two equal vectors, and two whose squared norms hide their difference.
    x = jnp.array([[300.0, 1], [300, 1], [300, 1.001], [0, 0]])
    distance = ml.distances(x)
    assert distance[0, 1] == 0
    assert np.asarray(jnp.diagonal(distance)).tolist() == [0, 0, 0, 0]
    assert (distance >= 0).all()
    gradient = jax.grad(lambda x: ml.distances(x).sum())(x)
    assert np.isfinite(gradient).all()


def test_bf16_vectors_have_float32_distances():
    assert ml.distances(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32


def test_pairs_omit_oneself_the_unknown_and_the_same_photograph():
    same, other = ml.pairs(jnp.array([4, 4, 4, 7, -1]), jnp.array([1, 1, 2, 1, -1]))
    as_pairs = [
        sorted(map(tuple, np.argwhere(mask).tolist())) for mask in (same, other)
    ]
    assert as_pairs[0] == [(0, 2), (1, 2), (2, 0), (2, 1)]
    # The fourth picture shows two individuals of photograph 1.
    assert as_pairs[1] == [(2, 3), (3, 2)]
    same, other = ml.pairs(jnp.array([0, 0]), jnp.array([-1, -1]))
    assert same.sum() == 2


@pytest.mark.parametrize("mining", ml.MINING)
@pytest.mark.parametrize("identity", [[0, 0, 0], [0, 1, 2], [-1, -1, -1]])
def test_a_batch_without_a_triplet_costs_nothing(mining, identity):
    def loss(x):
        masks = ml.pairs(jnp.array(identity))
        found = ml.triplet(ml.distances(x), *masks, margin=0.2, mining=mining)
        return found.loss.sum(), found

    x = jnp.array([[0.0, 1], [2, 3], [2, 3]])
    (value, found), gradient = jax.value_and_grad(loss, has_aux=True)(x)
    assert value == 0
    assert found.mined.sum() == found.active.sum() == 0
    np.testing.assert_array_equal(gradient, 0)


def test_semi_hard_triplets_are_between_the_positive_and_the_margin():
    # One anchor at 0, a positive at 1, negatives at 0.9, 1, 1.1, 1.5 and 2.
    x = jnp.array([0, 1, 0.9, 1, 1.1, 1.5, 2])[:, None]
    identity = jnp.array([0, 0, 1, 2, 3, 4, 5])
    found = ml.triplet(
        ml.distances(x), *ml.pairs(identity), margin=0.5, mining="semi_hard"
    )
    assert found.mined[0] == 2
    # At the margin itself the triplet is mined, and its loss is 0.
    assert found.active[0] == 1


def test_collapse_costs_the_margin():
    x, identity = jnp.zeros((6, 2)), jnp.arange(6) // 2
    for mining in ("all", "hard"):
        found = ml.triplet(
            ml.distances(x), *ml.pairs(identity), margin=0.2, mining=mining
        )
        assert found.loss.mean() == pytest.approx(0.2)
        assert (found.active == found.mined).all()


def test_contrastive_pulls_and_pushes():
    x, identity = jnp.array([[0.0], [2.0], [0.5]]), jnp.array([0, 0, 1])
    loss = ml.contrastive(ml.distances(x), *ml.pairs(identity), margin=1.0)
    # One pair of the same at 2; of the others, at 0.5 and 1.5.
    assert loss.mean() == pytest.approx(2**2 + 0.5**2 / 2)


def test_bad_arguments_are_named():
    masks = ml.pairs(jnp.array([0, 0, 1]))
    distance = ml.distances(jnp.eye(3))
    with pytest.raises(InputError, match="mining 'easy' is unknown"):
        ml.triplet(distance, *masks, margin=0.1, mining="easy")
    with pytest.raises(InputError, match="average 'sum' is unknown"):
        ml.contrastive(distance, *masks, margin=0.1, average="sum")
    with pytest.raises(ValueError, match="'semi_hard' needs a margin"):
        ml.triplet(distance, *masks, margin=None, mining="semi_hard")
