"""Mining and losses of embeddings against pytorch-metric-learning and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.ops import metric_learning
from tests.parity.peers import torch

pml = pytest.importorskip(
    "pytorch_metric_learning", reason="the peers are the extra 'parity'"
)
from pytorch_metric_learning import (  # noqa: E402  only after the check above
    distances,
    losses,
    miners,
    reducers,
)

MARGIN = 0.3
EUCLIDEAN = {"normalize_embeddings": False, "p": 2, "power": 1}
REDUCERS = {"all": reducers.MeanReducer, "active": reducers.AvgNonZeroReducer}


def batch(seed, count=24, identities=5, width=6):
    rng = np.random.default_rng(seed)
    identity = rng.integers(identities, size=count)
    x = (
        rng.normal(0, 0.3, (count, width))
        + rng.normal(size=(identities, width))[identity]
    )
    return x.astype(np.float32), identity.astype(np.int32)


def theirs_of(x, identity):
    return torch.tensor(x, requires_grad=True), torch.tensor(identity)


@pytest.mark.parametrize("seed", range(5))
def test_distances(seed):
    x, _ = batch(seed)
    expected = distances.LpDistance(**EUCLIDEAN)(torch.tensor(x)).numpy()
    np.testing.assert_allclose(metric_learning.distances(x), expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_hardest_pairs_are_equal(seed):
    x, identity = batch(seed)
    miner = miners.BatchHardMiner(distance=distances.LpDistance(**EUCLIDEAN))
    anchor, positive, negative = (
        index.numpy() for index in miner(torch.tensor(x), torch.tensor(identity))
    )
    masks = metric_learning.pairs(identity)
    found = metric_learning.hardest(metric_learning.distances(x), *masks)
    np.testing.assert_array_equal(np.flatnonzero(found.valid), anchor)
    np.testing.assert_array_equal(found.positive[anchor], positive)
    np.testing.assert_array_equal(found.negative[anchor], negative)


@pytest.mark.parametrize("average", REDUCERS)
@pytest.mark.parametrize("mining", metric_learning.MINING)
@pytest.mark.parametrize("margin", [MARGIN, None])
def test_triplet_losses_and_gradients(mining, margin, average):
    if mining == "semi_hard" and margin is None:
        pytest.skip("needs a margin")
    x, identity = batch(seed=1)
    leaf, labels = theirs_of(x, identity)
    distance = distances.LpDistance(**EUCLIDEAN)
    mined = {
        "all": lambda: None,
        "hard": lambda: miners.BatchHardMiner(distance=distance)(leaf, labels),
        "semi_hard": lambda: miners.TripletMarginMiner(
            margin=MARGIN, type_of_triplets="semihard", distance=distance
        )(leaf, labels),
    }[mining]()
    loss = losses.TripletMarginLoss(
        margin=margin or 0.0,
        smooth_loss=margin is None,
        distance=distance,
        reducer=REDUCERS[average](),
    )(leaf, labels, mined)
    loss.backward()

    def ours(x):
        found = metric_learning.triplet(
            metric_learning.distances(x),
            *metric_learning.pairs(identity),
            margin=margin,
            mining=mining,
            average=average,
        )
        return found.loss.mean(), found

    (value, found), gradient = jax.value_and_grad(ours, has_aux=True)(jnp.asarray(x))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, leaf.grad, atol=1e-6)
    if mined is not None:
        assert int(found.mined.sum()) == len(mined[0])


def pair_terms(x, labels, squared, average):
    """Returns the contrastive loss, written pair by pair."""
    parts = {True: [], False: []}
    for a in range(len(x)):
        for b in range(len(x)):
            if a == b:
                continue
            same = bool(labels[a] == labels[b])
            distance = (x[a] - x[b]).square().sum().sqrt()
            term = distance if same else torch.relu(1.5 - distance)
            parts[same].append(term**2 if squared else term)
    total = 0
    for part in map(torch.stack, parts.values()):
        count = len(part) if average == "all" else (part > 0).sum()
        total = total + part.sum() / count
    return total


@pytest.mark.parametrize("average", REDUCERS)
@pytest.mark.parametrize("squared", [True, False])
def test_contrastive_losses_and_gradients(squared, average):
    x, identity = batch(seed=2)
    leaf, labels = theirs_of(x, identity)
    peer = losses.ContrastiveLoss(
        pos_margin=0,
        neg_margin=1.5,
        distance=distances.LpDistance(**EUCLIDEAN),
        reducer=REDUCERS[average](),
    )
    terms = pair_terms(leaf, labels, squared, average)
    terms.backward()
    if not squared:
        assert terms.item() == pytest.approx(peer(leaf, labels).item(), rel=1e-6)

    def ours(x):
        return metric_learning.contrastive(
            metric_learning.distances(x),
            *metric_learning.pairs(identity),
            margin=1.5,
            squared=squared,
            average=average,
        ).mean()

    value, gradient = jax.value_and_grad(ours)(jnp.asarray(x))
    np.testing.assert_allclose(value, terms.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, leaf.grad, atol=1e-6)


def test_a_triplet_of_optax():
    x, _ = batch(seed=3, count=3)
    identity = np.array([0, 0, 1])
    found = metric_learning.triplet(
        metric_learning.distances(x),
        *metric_learning.pairs(identity),
        margin=3.0,
        mining="all",
    )
    expected = optax.losses.triplet_margin_loss(*x[:3, None], margin=3.0)
    np.testing.assert_allclose(found.loss[0] / 3 * 2, expected[0], rtol=1e-5)
