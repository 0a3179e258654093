"""Who may import whom, read from the imports themselves."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fpn_jax"
ROOMS = {
    "errors": set(),
    "registry": set(),
    "pyramid": set(),
    "metrics": set(),
    "ops": {"pyramid"},
    "imaging": {"ops", "pyramid"},
    "data": set(),
    "layers": {"ops", "pyramid", "registry"},
    "backbones": {"layers", "ops", "pyramid", "registry"},
    "necks": {"layers", "ops", "pyramid", "registry"},
    "heads": {"layers", "ops", "pyramid", "registry"},
    "model": {"backbones", "necks", "heads", "imaging", "ops", "pyramid"},
    "tasks": {"ops", "metrics"},
    "train": {"metrics"},
    "workdir": {"config", "train"},
    "pretrained": {"backbones", "heads"},
    "config": set(),
    "predict": {"data", "metrics"},
    "export": {"predict", "data", "metrics"},
    "report": set(),
    "views": {"data", "report"},
    "experiment": {
        *("backbones", "necks", "heads", "model", "ops", "tasks", "train", "data"),
        *("config", "weights"),
    },
    "weights": {"backbones", "config", "pretrained"},
    "run_report": {"experiment", "data", "report", "train", "views"},
    "trained": {"experiment", "tasks", "config", "predict", "pretrained", "train"},
    "run": {
        "experiment",
        "config",
        "data",
        "run_report",
        "train",
        "trained",
        "workdir",
    },
    "summary": {
        *("experiment", "backbones", "necks", "heads", "layers", "train", "config"),
    },
    "runtime": set(),
    "main": {
        *("config", "run", "trained", "predict", "export", "experiment", "runtime"),
        "summary",
    },
}
FOREIGN_TO_DATA = {"jax", "flax", "optax", "orbax"}


def python_files():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """Yields every dotted name that a file imports, names of `from` included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_its_arrows_allow(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ROOMS, f"{path}: a room without arrows; add it to ROOMS"
    allowed = ROOMS[room] | {room, "errors"}
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "fpn_jax" and len(parts) > 1:
            assert parts[1] in allowed, f"{room} may not import {parts[1]} ({path})"
        assert parts[0] not in ("configs", "tests", "benchmarks"), path
        if room == "data":
            assert parts[0] not in FOREIGN_TO_DATA, f"{path}: data starts without JAX"


def test_backbones_necks_and_heads_do_not_know_each_other():
    for room in ("backbones", "necks", "heads"):
        assert not ROOMS[room] & {"backbones", "necks", "heads"}


def uses(word, *, outside):
    return [
        str(path.relative_to(ROOT))
        for path in python_files()
        if word in path.read_text() and path.relative_to(PACKAGE).as_posix() != outside
    ]


def test_pmap_stands_in_one_file():
    assert uses("jax.pmap(", outside="train/parallel.py") == []


def test_flags_stand_in_one_file():
    assert uses("flags.DEFINE_", outside="main.py") == []


def test_no_config_value_has_a_silent_default():
    assert uses("config.get(", outside="") == []


def test_data_imports_without_jax():
    import subprocess
    import sys

    code = (
        "import sys; import fpn_jax.data.records, fpn_jax.data.sources.drawn, "
        "fpn_jax.data.sources.folder, fpn_jax.data.sources.tfds, "
        "fpn_jax.data.augmentation, fpn_jax.data.check; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_configs_import_only_configs():
    for path in sorted((ROOT / "configs").glob("*.py")):
        names = {name.split(".")[0] for name in imported(path)}
        assert names <= {"ml_collections", "configs"}, path
