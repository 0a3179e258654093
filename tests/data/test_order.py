import numpy as np
import pytest

from fpn_jax.data import order


@pytest.mark.parametrize(
    ("seed", "position", "stream"), [(0, 0, 0), (7, 2**40, 0), (2**31 - 1, 3, 1)]
)
def test_draws_are_those_of_a_generator_made_for_the_position(seed, position, stream):
    order.generator_at(1, 1).integers(5, size=3, dtype=np.uint8)  # Leaves bytes over.
    ours = order.generator_at(seed, position, stream)
    counter = (0, 0, stream, position)
    theirs = np.random.Generator(np.random.Philox(key=seed, counter=counter))
    for draw in ("random", "standard_normal"):
        assert getattr(ours, draw)(5).tolist() == getattr(theirs, draw)(5).tolist()
    for generator in (ours, theirs):
        generator.integers(5, size=3, dtype=np.uint8)
    assert ours.permutation(9).tolist() == theirs.permutation(9).tolist()


@pytest.mark.parametrize("seed", [0, 5])
def test_every_epoch_is_a_permutation_of_its_own(seed):
    numbers = [order.record_number(7, seed, position) for position in range(28)]
    epochs = [tuple(numbers[start : start + 7]) for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) == 4
    assert numbers == [order.record_number(7, seed, position) for position in range(28)]
