"""Eight simulated CPU devices for every test, and absl flags as after start-up."""

import gc
import os
import pathlib
import runpy
import sys
import tempfile

# More threads than devices, or steps of simulated devices wait for each other for ever.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What is compiled here is many, and runs for milliseconds: half the suite's time.
if os.environ["JAX_PLATFORMS"] == "cpu":
    QUICKLY = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}".strip()
# The same step is compiled once for all tests, those in other processes included.
CACHE = tempfile.TemporaryDirectory(prefix="fpn_jax_tests_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)

if not flags.FLAGS.is_parsed():
    # grain reads absl flags when it makes its iterators.
    flags.FLAGS.mark_as_parsed()


def pytest_configure(config):
    # By default files with few tests come last, and the longest have few.
    config.option.loadscopereorder = False


@pytest.fixture(autouse=True)
def seeded():
    """Seeds PyTorch, where a test's file uses it: all layers share one generator."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def reads_collected():
    """Collects the reads that Orbax left behind: here, not in some later test."""
    yield
    hook, sys.unraisablehook = sys.unraisablehook, lambda uncaught: None
    gc.collect()
    sys.unraisablehook = hook


CONFIG = "configs/fpn.py:smoke"
ROOT = pathlib.Path(__file__).parent.parent

# A program that tests start, not one to import.
collect_ignore = ["launch_stand_in.py"]


def tiny(workdir=None, /, **changes):
    """Returns the resolved smoke config, shrunk to a few steps; `a__b` sets `a.b`."""
    from fpn_jax import experiment

    config = runpy.run_path(str(ROOT / "configs" / "fpn.py"))["get_config"]("smoke")
    changes = {
        "data__drawn__train_records": 96,
        "data__drawn__validate_records": 37,
        "data__drawn__test_records": 24,
        "data__global_batch_size": 16,
        "train__total_steps": 6,
        "train__evaluate_every_steps": 3,
    } | changes
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = config
        for name in parents:
            place = place[name]
        place[last] = value
    overridden = frozenset(key.replace("__", ".") for key in changes)
    # Only the keys of the chosen source have an effect, and tests choose others.
    kept = frozenset(key for key in overridden if not key.startswith("data."))
    return experiment.resolve(config, kept, workdir)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """Returns the workdir of a run that went through to its end."""
    from fpn_jax import run

    workdir = tmp_path_factory.mktemp("runs") / "first"
    assert run.train(tiny(), str(workdir)) == 0
    return workdir
