"""Short forms of `python -m benchmarks.faults`: runs that end unplanned."""

import signal

import numpy as np
import pytest

from benchmarks.faults import ends, long_run, nonfinite, pictures, shapes
from benchmarks.faults.runs import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"), steps=18)


def holds(bench, scratch, attempt, *arguments, seed=0, **options):
    outcome = attempt(
        bench, scratch, np.random.default_rng(seed), *arguments, **options
    )
    print(f"\n{outcome.said}")
    assert outcome.held, outcome.said
    return outcome


def test_another_seed_differs(bench, tmp_path):
    """The control: without it, the comparisons below could not fail."""
    outcome = holds(bench, tmp_path, ends.another_seed)
    assert outcome.figures["differing_bytes"] > 1000


def test_killed_runs_are_as_uninterrupted(bench, tmp_path):
    outcome = holds(bench, tmp_path, ends.killed, kills=3)
    assert "while it evaluates" in outcome.said


def test_an_interrupt_saves_and_leaves_nothing_behind(bench, tmp_path):
    holds(bench, tmp_path, ends.asked_to_stop, signal.SIGINT)


def test_workers_end_with_the_run_that_is_killed(bench, tmp_path):
    holds(bench, tmp_path, ends.killed_with_workers)


def test_a_full_disk_is_told_of_and_spoils_nothing(bench, tmp_path):
    holds(bench, tmp_path, ends.disk_full)


def test_a_killed_worker_is_told_of_and_nothing_is_lost(bench, tmp_path):
    holds(bench, tmp_path, pictures.worker_killed)


def test_two_processes_stop_at_a_signal_to_one_and_another_shape_goes_on(
    bench, tmp_path
):
    holds(bench, tmp_path, shapes.resumed_elsewhere, (2, 1), (1, 8))


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_an_exploding_loss_is_named_and_a_good_state_kept(bench, tmp_path, policy):
    holds(bench, tmp_path, nonfinite.exploding, policy)


def test_nothing_is_compiled_again(bench, tmp_path):
    """What a few steps say of memory and time is noise, and not asked for."""
    rng = np.random.default_rng(0)
    outcome = long_run.flat(bench, tmp_path, rng, steps=60)
    assert outcome.figures, outcome.said
    assert outcome.figures["compiled_before"] > 0, outcome.said
    assert outcome.figures["compilations"] == 0, outcome.said
