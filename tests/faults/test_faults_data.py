"""Short forms of `python -m benchmarks.faults`: disks, images, untrusted files."""

import numpy as np
import pytest

from benchmarks.faults import disks, pictures, untrusted
from benchmarks.faults.runs import Bench
from fpn_jax.data.images import reading

# After a failed read, TensorStore's other reads end only after Orbax has closed their
# event loop, or when they are garbage-collected.
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
def passes(bench, tmp_path):
    """Returns a function that makes attempts, all of which must pass."""
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
        failed = [outcome.message for outcome in outcomes if not outcome.passed]
        assert not failed
        return outcomes

    return attempts


@pytest.mark.parametrize("damage", disks.DAMAGES)
def test_a_damaged_checkpoint_is_noticed(passes, damage):
    times = {"a bit flipped": 10, "an empty folder": 1}.get(damage, 4)
    outcomes = passes(times, disks.damaged, damage)
    if damage in ("a bit flipped", "half of the files gone", "an empty folder"):
        assert any("resumed from step" in outcome.message for outcome in outcomes)


def test_corrupted_files_are_refused(passes):
    outcomes = passes(100, pictures.corruption)
    assert sum(outcome.values["must"] for outcome in outcomes) > 50


def test_files_with_odd_names_are_reported(passes):
    passes(1, pictures.odd_names)


def test_planted_copies_are_found(passes):
    passes(3, pictures.planted_copies)


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("fault", [pictures.stalled_read, pictures.deleted_file])
def test_a_file_that_becomes_unreadable_is_reported(passes, monkeypatch, fault, policy):
    monkeypatch.setattr(reading, "READ_SECONDS", 0.5)
    passes(1, fault, policy, 0)


@pytest.mark.parametrize("name", untrusted.WEIGHTS)
def test_untrusted_weights_are_refused(passes, name):
    passes(1, untrusted.weights, name)


@pytest.mark.parametrize("name", untrusted.CONFIGS)
def test_an_untrusted_workdir_is_refused(passes, name):
    passes(1, untrusted.config, name)
