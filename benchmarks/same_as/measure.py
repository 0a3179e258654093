"""Runs a case in the tree of a commit, and keeps what it gave."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from benchmarks import timing
from benchmarks.same_as import probe, rows
from benchmarks.same_as.cases import TRAINING_BATCHES, Case

Measured = dict[str, rows.Rows]
"""Name of a measurement → its rows."""

REPOSITORY = Path(__file__).parents[2]
"""The tree that this program belongs to."""


class RunFailed(Exception):
    """A command failed; the text is the end of what it printed."""


def run(tree: Path, arguments: list[str], devices: int = 1) -> str:
    """Runs Python inside a tree, with the package of that tree, on the CPU.

    Args:
      tree: Working directory of the process, and the place of its packages.
      arguments: Of the Python interpreter.
      devices: Number of CPU devices to simulate.

    Returns:
      What it printed on standard output.

    Raises:
      RunFailed: Its exit code is not 0.
    """
    environment = dict(os.environ)
    # Both would change the numbers; `fpn_jax.runtime` sets them.
    for name in ("XLA_FLAGS", "NPROC"):
        environment.pop(name, None)
    environment |= {
        "PYTHONPATH": str(tree),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        # Empty: no compiled program of another tree is read.
        "JAX_COMPILATION_CACHE_DIR": "",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise RunFailed(f"exit code {done.returncode}: {' | '.join(last)}")
    return done.stdout


def check_package(tree: Path) -> None:
    """Makes sure that Python inside a tree imports the package of that tree.

    Raises:
      RunFailed: It imports another one, so that a comparison would say nothing.
    """
    code = "import fpn_jax; print(fpn_jax.__file__)"
    imported = Path(run(tree, ["-c", code]).strip()).resolve()
    if not imported.is_relative_to(tree.resolve()):
        raise RunFailed(f"inside {tree}, Python imports {imported}")


def measure(case: Case, tree: Path, given: Mapping[str, str], images: Path) -> Measured:
    """Returns the measurements of a case in the tree of a commit.

    Args:
      case: What to train, and what to measure.
      tree: Folder of the commit.
      given: `root` and `weights` → path.
      images: Folder of the images to predict.

    Raises:
      RunFailed: One of its commands failed.
    """
    with tempfile.TemporaryDirectory(prefix="fpn_jax_same_as_") as scratch:
        folder = Path(scratch)
        workdir = folder / "run"
        program = ["-m", "fpn_jax.main"]
        training = [*case.flags(given), f"--workdir={workdir}"]
        if "batches" in case.measures:
            recorded = [probe.__file__, "batches", str(folder / "batches.jsonl")]
            run(tree, ["-P", *recorded, *training], case.devices)
        else:
            run(tree, [*program, *training], case.devices)
        use = [*program, f"--workdir={workdir}"]
        if "predictions" in case.measures:
            output = f"--output={folder / 'predictions.csv'}"
            predict = ["--mode=predict", f"--input={images}", output]
            run(tree, [*use, *predict], case.devices)
        if "evaluation" in case.measures:
            run(tree, [*use, "--mode=evaluate", "--split=test"], case.devices)
        if "export" in case.measures:
            model = folder / "model.stablehlo"
            run(tree, [*use, "--mode=export", f"--output={model}"], case.devices)
            call = [probe.__file__, "call", str(model), str(folder / "outputs.json")]
            run(tree, ["-P", *call], case.devices)
        return _read(case, folder, workdir)


def _read(case: Case, folder: Path, workdir: Path) -> Measured:
    measured = {"metrics": rows.metrics(workdir / "metrics.jsonl")}
    if "batches" in case.measures:
        recorded = folder / "batches.jsonl"
        measured["batches"] = rows.batches(recorded, TRAINING_BATCHES)
    if "checkpoint" in case.measures:
        measured["checkpoint"] = rows.checkpoints(workdir / "checkpoints")
    if "predictions" in case.measures:
        measured["predictions"] = rows.lines(folder / "predictions.csv")
    if "evaluation" in case.measures:
        measured["evaluation"] = rows.keys(workdir / "evaluation_test.json")
    if "export" in case.measures:
        measured["export"] = rows.keys(folder / "outputs.json")
        size = (folder / "model.stablehlo").stat().st_size
        measured["size of the export"] = {"bytes": str(size)}
    return measured


def cache_folder() -> Path:
    """Returns the folder that keeps results and images between two calls."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "fpn_jax" / "same_as"


def cached_file(case: Case, name: str, sha: str, given: Mapping[str, str]) -> Path:
    """Returns the file that keeps what a commit gave for a case on this machine.

    Its name depends on everything that the result depends on: the case, the paths, the
    machine and the versions, and the code that measures.
    """
    code = [
        Path(file).read_text() for file in (__file__, probe.__file__, rows.__file__)
    ]
    depends = [
        case.flags(given),
        case.measures,
        case.devices,
        timing.machine(),
        cv2.__version__,
        code,
    ]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:12]
    return cache_folder() / sha / f"{name}-{key}.json"


def write_images(folder: Path, count: int = 40) -> None:
    """Writes images of several sizes and formats; always the same ones.

    Args:
      folder: Where they go; if it exists, nothing is written.
      count: Number of images.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    written = Path(tempfile.mkdtemp(dir=folder.parent))
    for number in range(count):
        # Blurred noise, as grey, colours, or colours with transparency.
        channels, suffix = ((1, ".png"), (3, ".jpg"), (3, ".png"), (4, ".png"))[
            number % 4
        ]
        coarse = rng.integers(0, 256, (8, 8, channels), np.uint8)
        height, width = (int(side) for side in rng.integers(40, 240, 2))
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(written / f"{number:02d}{suffix}"), image)
    written.rename(folder)
