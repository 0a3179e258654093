"""Batches of P individuals with K pictures each."""

import numpy as np
import pytest

from fpn_jax.data.groups import Groups
from fpn_jax.errors import InputError

# Individuals 3, 5, …, 15 with 1 to 7 pictures, and two records without an individual.
IDENTITIES = [-1, *np.repeat(np.arange(3, 17, 2), np.arange(1, 8)).tolist(), -1]


def groups(**changes):
    given = {"images_per_identity": 4, "batch_size": 12, "seed": 0} | changes
    return Groups(IDENTITIES, **given)


def batch(made, number, size=12, **given):
    positions = range(number * size, (number + 1) * size)
    return [made.number_at(position, **given) for position in positions]


def test_a_batch_has_p_individuals_with_k_pictures():
    made = groups()
    for number in range(40):
        records = np.array(batch(made, number)).reshape(3, 4)
        who = np.array(IDENTITIES)[records]
        assert (who == who[:, :1]).all()
        assert len(set(who[:, 0])) == 3
        assert who.min() >= 0
        for row, name in zip(records, who[:, 0], strict=True):
            # Without repetition, unless there are fewer than K pictures.
            assert len(set(row)) == min(4, IDENTITIES.count(name))


def test_every_individual_and_every_picture_has_its_turn():
    made = groups()
    seen = np.bincount(
        [record for number in range(300) for record in batch(made, number)],
        minlength=len(IDENTITIES),
    )
    assert seen[0] == seen[-1] == 0
    assert (seen[1:-1] > 0).all()
    who = np.array(IDENTITIES)[1:-1]
    shown = np.array([seen[1:-1][who == name].sum() for name in np.unique(who)])
    assert shown.min() > 0.8 * shown.mean()


def test_the_order_is_a_pure_function_of_seed_and_position():
    first, again = groups(), groups()
    batch(first, 7)
    assert batch(first, 3) == batch(again, 3)
    assert batch(groups(seed=1), 3) != batch(again, 3)


def test_a_group_stays_on_one_process():
    made = groups(batch_size=24, images_per_identity=4)
    alone = batch(made, 5, size=24)
    shared = batch(made, 5, size=24, process_count=2)
    assert sorted(alone) == sorted(shared)
    for process in range(2):
        who = np.array(IDENTITIES)[shared[process::2]].reshape(3, 4)
        assert (who == who[:, :1]).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images_per_identity": 1}, "images_per_identity is 1"),
        ({"images_per_identity": 5}, "it must divide the data.global_batch_size of 12"),
        ({"batch_size": 4}, "has 1 individuals; the training split has 7"),
        ({"batch_size": 32}, "has 8 individuals; the training split has 7"),
    ],
)
def test_impossible_batches_are_named(changes, reason):
    with pytest.raises(InputError, match=reason):
        groups(**changes)


def test_individuals_with_one_picture_each_are_refused():
    with pytest.raises(InputError, match=r"each of the 6 individuals .* one picture"):
        Groups(range(6), images_per_identity=2, batch_size=4, seed=0)
