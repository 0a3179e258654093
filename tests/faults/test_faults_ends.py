"""Short forms of `python -m benchmarks.faults`: runs that end early."""

import signal

import numpy as np
import pytest

from benchmarks.faults import ends, long_run, nonfinite, pictures, shapes
from benchmarks.faults.runs import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("faults"), steps=18)


def passes(bench, scratch, attempt, *arguments, seed=0, **options):
    outcome = attempt(
        bench, scratch, np.random.default_rng(seed), *arguments, **options
    )
    print(f"\n{outcome.message}")
    assert outcome.passed, outcome.message
    return outcome


def test_another_seed_differs(bench, tmp_path):
    """The control: without it, the comparisons below could not fail."""
    outcome = passes(bench, tmp_path, ends.another_seed)
    assert outcome.values["differing_bytes"] > 1000


def test_killed_runs_equal_the_uninterrupted_run(bench, tmp_path):
    outcome = passes(bench, tmp_path, ends.killed, kills=3)
    assert "while it evaluates" in outcome.message


def test_an_interrupt_saves_and_leaves_nothing_behind(bench, tmp_path):
    passes(bench, tmp_path, ends.asked_to_stop, signal.SIGINT)


def test_workers_end_when_their_run_is_killed(bench, tmp_path):
    passes(bench, tmp_path, ends.killed_with_workers)


def test_a_full_disk_is_reported_and_damages_nothing(bench, tmp_path):
    passes(bench, tmp_path, ends.disk_full)


def test_a_killed_worker_is_reported_and_nothing_is_lost(bench, tmp_path):
    passes(bench, tmp_path, pictures.worker_killed)


def test_two_processes_stop_at_a_signal_to_one_and_another_shape_resumes(
    bench, tmp_path
):
    passes(bench, tmp_path, shapes.resumed_elsewhere, (2, 1), (1, 8))


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_an_exploding_loss_is_reported_and_a_good_state_kept(bench, tmp_path, policy):
    passes(bench, tmp_path, nonfinite.exploding, policy)


def test_nothing_is_compiled_again(bench, tmp_path):
    """Memory and time of so few steps are noise, so they are not checked."""
    rng = np.random.default_rng(0)
    outcome = long_run.flat(bench, tmp_path, rng, steps=60)
    assert outcome.values, outcome.message
    assert outcome.values["compiled_before"] > 0, outcome.message
    assert outcome.values["compilations"] == 0, outcome.message
