"""Simulates eight CPU devices for all tests; defines shared configs and fixtures."""

import gc
import os
import pathlib
import sys
import tempfile

from fpn_jax import runtime

# With fewer threads, the steps of simulated devices deadlock.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile many programs that run for milliseconds. Compiling with fewer
# optimizations halves the time of the suite.
if os.environ["JAX_PLATFORMS"] == "cpu":
    QUICKLY = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    KNOWN = runtime.known_flags(QUICKLY)
    os.environ["XLA_FLAGS"] = f"{KNOWN} {os.environ.get('XLA_FLAGS', '')}".strip()
# All tests, also those in other processes, share one cache of compiled steps.
CACHE = tempfile.TemporaryDirectory(prefix="fpn_jax_tests_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)

if not flags.FLAGS.is_parsed():
    # grain reads absl flags when it creates iterators.
    flags.FLAGS.mark_as_parsed()


def pytest_configure(config):
    # By default, files with few tests run last, but the slowest files have few tests.
    config.option.loadscopereorder = False


@pytest.fixture(autouse=True)
def seeded():
    """Seeds PyTorch if it is loaded: all of its layers share one generator."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def reads_collected():
    """Collects Orbax's cancelled reads, so that no later test gets their warnings."""
    yield
    hook, sys.unraisablehook = sys.unraisablehook, lambda uncaught: None
    gc.collect()
    sys.unraisablehook = hook


CONFIG = "configs/fpn.py:smoke"
ROOT = pathlib.Path(__file__).parent.parent

# launch_stand_in.py is a program that tests start; outside_parts.py has no tests.
collect_ignore = ["launch_stand_in.py", "outside_parts.py"]


SMALL = {
    "data__source__train_records": 96,
    "data__source__validate_records": 37,
    "data__source__test_records": 24,
    "data__global_batch_size": 16,
    "train__total_steps": 6,
    "train__evaluate_every_steps": 3,
}
"""Changes of the smoke config for runs of a few steps."""


def words(changes):
    """Returns the words of a command line; `a__b` sets the key `a.b`."""
    return [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]


def given(config=CONFIG, **changes):
    """Returns a config file with changes of the command line; `a__b` sets `a.b`."""
    from fpn_jax import command_line

    return command_line.read(str(ROOT / config), words(changes))


def tiny_given(**changes):
    """Returns the smoke config with few steps, not yet resolved."""
    small = SMALL
    if "data__source" in changes:
        small = {k: v for k, v in SMALL.items() if "source" not in k}
    return given(**small | changes)


def tiny(workdir=None, /, **changes):
    """Returns the smoke config with few steps, resolved."""
    from fpn_jax.resolve import resolve

    return resolve(tiny_given(**changes), workdir)


def train(workdir, **changes):
    """Trains the smoke config for a few steps; returns the exit code."""
    from fpn_jax.modes import Options
    from fpn_jax.modes import train as mode

    return mode.run(Options(given=tiny_given(**changes), workdir=str(workdir)))


class Counted:
    """A source without records, which has only a length and classes."""

    def __init__(self, records, classes=("cat", "dog")):
        from fpn_jax.data.records import SourceInfo

        self.records = records
        self.info = SourceInfo(classes=tuple(classes), fields=("label",))

    def __len__(self):
        return self.records


def planned(config, classes=("cat", "dog")):
    """Returns the experiment of a resolved config."""
    from fpn_jax.experiment import Experiment

    return Experiment(config, Counted(1, classes).info)


def prepared(config, records=20_000, classes=("cat", "dog")):
    """Returns the prepared training of a resolved config on `records` records."""
    source = Counted(records, classes)
    return planned(config, classes).prepare(source, source)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """Returns the workdir of a finished run."""
    workdir = tmp_path_factory.mktemp("runs") / "first"
    assert train(workdir) == 0
    return workdir
