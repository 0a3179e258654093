"""Real runs of the command line: devices and processes change nothing."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import CONFIG, ROOT

from fpn_jax import config as configs
from fpn_jax.experiment import Experiment
from fpn_jax.train.checkpoints import Checkpoints

STEPS = 24
SETTINGS = (
    "--config.data.drawn.train_records=96",
    "--config.data.drawn.validate_records=37",
    "--config.data.global_batch_size=16",
    # SGD: AdamW's first steps are signs of gradients, which makes of a difference in
    # the last bit one of the whole step.
    "--config.optimizer.name=sgd",
    "--config.optimizer.learning_rate=0.05",
    f"--config.train.total_steps={STEPS}",
    "--config.train.evaluate_every_steps=6",
    "--config.train.keep_checkpoints=9",
)


def arguments(workdir, *more):
    return [f"--config={CONFIG}", f"--workdir={workdir}", *SETTINGS, *more]


def command(workdir, *more):
    return [sys.executable, "-m", "fpn_jax.main", *arguments(workdir, *more)]


def environment(devices=1):
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "NPROC": "16"}


def run(workdir, *more, devices=1):
    ran = subprocess.run(
        command(workdir, *more),
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def state(workdir, step=STEPS):
    """Returns every array of a checkpoint but the step's number, by name."""
    checkpoints = Checkpoints(workdir / "checkpoints", monitor="accuracy")
    try:
        meta = checkpoints.meta(step)
        experiment = Experiment(configs.load(meta["config"]), tuple(meta["classes"]))
        transformation, _ = experiment.optimizer(STEPS)
        like = jax.eval_shape(lambda: experiment.initial_state(transformation))
        restored = checkpoints.restore(step, like).replace(rng=None)
    finally:
        checkpoints.close()
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def largest_difference(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(
        float(np.max(np.abs(ours[name].astype(np.float64) - theirs[name])))
        for name in ours
    )


def records(workdir):
    """Returns the records, without the speed."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    speed = "train/images_per_second"
    return [{key: row[key] for key in row if key != speed} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    run(workdir)
    return workdir


def test_eight_devices_equal_one(uninterrupted, tmp_path):
    run(tmp_path, devices=8)
    difference = largest_difference(state(uninterrupted), state(tmp_path))
    print(f"\n8 devices and 1: largest difference {difference:.1e}")
    # The sums over a batch are taken in another order.
    assert difference < 2e-4
    for ours, theirs in zip(records(uninterrupted), records(tmp_path), strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)


def test_two_processes_equal_one(uninterrupted, tmp_path):
    bin_folder = os.path.dirname(sys.executable)
    subprocess.run(
        ["bash", "launch/local.sh", "2", "1", "--", *arguments(tmp_path)],
        cwd=ROOT,
        env=environment() | {"PATH": f"{bin_folder}:/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
    difference = largest_difference(state(uninterrupted), state(tmp_path))
    print(f"\n2 processes and 1: largest difference {difference:.1e}")
    assert difference < 2e-4
    assert (tmp_path / "report.html").exists()
    assert len(records(tmp_path)) == len(records(uninterrupted))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path):
    ran = subprocess.run(
        command(
            tmp_path,
            "--config.optimizer.learning_rate=1e30",
            "--config.train.evaluate_every_steps=1",
        ),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert "fpn_jax: step " in ran.stderr
    assert "the last good checkpoint is" in ran.stderr
    assert "Traceback" not in ran.stderr
    for leaf in state(tmp_path, step=1).values():
        assert np.isfinite(leaf).all()
