"""Short forms of `python -m benchmarks.faults`: disks, photographs, strangers."""

import numpy as np
import pytest

from benchmarks.faults import disks, pictures, strangers
from benchmarks.faults.runs import Bench
from fpn_jax.data.images import reading

# Where a read fails, TensorStore's other reads still end after Orbax closed their loop,
# or when they are collected.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. (None|.coroutine object _read)"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("reads_collected"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"), steps=12)


@pytest.fixture
def hold(bench, tmp_path):
    """Makes attempts; all of them must hold."""
    count = 0

    def attempts(times, attempt, *arguments):
        nonlocal count
        outcomes = []
        for number in range(times):
            count += 1
            scratch = tmp_path / str(count)
            scratch.mkdir()
            rng = np.random.default_rng(number)
            outcomes.append(attempt(bench, scratch, rng, *arguments))
        wrong = [outcome.said for outcome in outcomes if not outcome.held]
        assert not wrong
        return outcomes

    return attempts


@pytest.mark.parametrize("damage", disks.DAMAGES)
def test_a_damaged_checkpoint_is_noticed(hold, damage):
    times = {"a bit flipped": 10, "an empty folder": 1}.get(damage, 4)
    outcomes = hold(times, disks.damaged, damage)
    if damage in ("a bit flipped", "half of the files gone", "an empty folder"):
        assert any("back to step" in outcome.said for outcome in outcomes)


def test_corrupted_files_are_refused(hold):
    outcomes = hold(100, pictures.corruption)
    assert sum(outcome.figures["must"] for outcome in outcomes) > 50


def test_odd_names(hold):
    hold(1, pictures.odd_names)


def test_planted_copies_are_found(hold):
    hold(3, pictures.planted_copies)


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("fault", [pictures.stalled_read, pictures.deleted_file])
def test_a_file_that_cannot_be_read_any_more(hold, monkeypatch, fault, policy):
    monkeypatch.setattr(reading, "READ_SECONDS", 0.5)
    hold(1, fault, policy, 0)


@pytest.mark.parametrize("name", strangers.WEIGHTS)
def test_weights_from_a_stranger(hold, name):
    hold(1, strangers.weights, name)


@pytest.mark.parametrize("name", strangers.CONFIGS)
def test_a_workdir_from_a_stranger(hold, name):
    hold(1, strangers.config, name)
