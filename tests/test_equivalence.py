"""Runs of the command line on several devices and processes equal one device."""

import itertools

import pytest

from benchmarks.faults import runs, shapes

STEPS = 24
WHOLE_NETWORK = "--config.backbone.levels=(2,3,4,5)"


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "one"
    runs.finish(workdir, STEPS, WHOLE_NETWORK)
    return workdir


@pytest.mark.parametrize(
    "shape", [{"devices": 8}, {"processes": 2}], ids=["8 devices", "2 processes"]
)
def test_several_devices_and_processes_equal_one_device(on_one_device, tmp_path, shape):
    workdir = tmp_path / "run"
    runs.finish(workdir, STEPS, WHOLE_NETWORK, **shape)
    difference = runs.largest_difference(workdir, on_one_device, STEPS)
    print(f"\n{shape}: largest difference {difference:.1e}")
    assert difference < shapes.TOLERANCE
    for ours, theirs in itertools.zip_longest(
        runs.records(workdir), runs.records(on_one_device)
    ):
        assert ours == pytest.approx(theirs, abs=shapes.TOLERANCE)
    assert (workdir / "report.html").exists()
