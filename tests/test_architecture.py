"""Checks which packages import which, by reading the import statements."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fpn_jax"
ROOMS = {
    "errors": set(),
    "types": set(),
    "registry": {"types"},
    "pyramid": set(),
    "metrics": set(),
    "ops": set(),
    "imaging": {"pyramid"},
    "data": set(),
    "report": set(),
    "views": {"data", "report"},
    "layers": {"ops", "registry"},
    "backbones": {"layers", "ops", "pyramid", "registry"},
    "necks": {"layers", "ops", "pyramid", "registry"},
    "heads": {"layers", "ops", "pyramid", "registry"},
    "tasks": {"metrics", "ops", "registry"},
    "train": {"metrics", "registry"},
    "config": {"types"},
    "paths": set(),
    "command_line": {"config"},
    "workdir": {"config", "train"},
    "model": {"backbones", "necks", "heads", "imaging", "ops", "pyramid"},
    "pretrained": {"backbones", "heads"},
    "predictor": {"data", "views"},
    "exporters": {"predictor"},
    "resolve": {
        *("command_line", "config", "paths", "registry", "backbones", "data", "model"),
        "ops",
        *("pretrained", "tasks", "train", "workdir"),
    },
    "parts": {"config", "data", "model", "resolve", "tasks", "train"},
    "contract": {"data", "tasks", "views"},
    "experiment": {
        *("config", "contract", "data", "model", "ops", "parts", "pyramid", "tasks"),
        *("train",),
    },
    "trained": {
        *("config", "data", "experiment", "parts", "predictor", "pretrained", "train"),
        *("views", "workdir"),
    },
    "modes": {
        *(
            "command_line",
            "config",
            "data",
            "experiment",
            "exporters",
            "model",
            "parts",
            "paths",
        ),
        *("predictor", "report", "resolve", "train", "trained", "views", "workdir"),
        # --mode=list shows all names.
        *("backbones", "necks", "heads", "layers", "tasks"),
    },
    "runtime": set(),
    "main": {"command_line", "modes", "paths", "runtime"},
}
"""Package → the packages that it imports, besides itself and `errors`."""

FOREIGN_TO_DATA = {"jax", "flax", "optax", "orbax"}


def python_files():
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """Yields the dotted name of every import of a file, `from` imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_package_imports_only_allowed_packages(path):
    package = package_of(path)
    if package == "__init__":
        return
    assert package in ROOMS, f"{path}: add the package to ROOMS"
    allowed = ROOMS[package] | {package, "errors"}
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "fpn_jax" and len(parts) > 1:
            assert parts[1] in allowed, f"{path} may not import {parts[1]}"
        assert parts[0] not in ("configs", "tests", "benchmarks"), path
        if package == "data":
            assert parts[0] not in FOREIGN_TO_DATA, f"{path}: data must not need JAX"


@pytest.mark.parametrize("package", ROOMS)
def test_every_allowed_import_is_used(package):
    used = {
        name.split(".")[1]
        for path in python_files()
        if package_of(path) == package
        for name in imported(path)
        if name.startswith("fpn_jax.")
    }
    assert used - {package, "errors"} == ROOMS[package]


def test_backbones_necks_and_heads_do_not_import_each_other():
    for package in ("backbones", "necks", "heads"):
        assert not ROOMS[package] & {"backbones", "necks", "heads"}


def uses(word, *, outside):
    return [
        str(path.relative_to(ROOT))
        for path in python_files()
        if word in path.read_text() and path.relative_to(PACKAGE).as_posix() != outside
    ]


def test_only_one_file_uses_pmap():
    assert uses("jax.pmap(", outside="train/parallel.py") == []


def test_only_one_file_defines_flags():
    assert uses("\nflags.DEFINE_", outside="main.py") == []


@pytest.mark.parametrize("word", ["softmax(", "argmax("])
def test_only_tasks_decode_predictions(word):
    """Operations, layers, losses and metrics may use softmax and argmax, too."""
    packages = {path.split("/")[1] for path in uses(word, outside="")}
    assert packages <= {"tasks", "ops", "layers", "data", "metrics"}


FILES_OF_A_WORKDIR = (
    *("config.json", "metrics.jsonl", "training.lock", "report.html"),
    *("damaged_checkpoint", "evaluation_", "mistakes_"),
)


@pytest.mark.parametrize("name", FILES_OF_A_WORKDIR)
def test_only_one_package_names_files_of_a_workdir(name):
    found = set()
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                # Docstrings and sentences may name the files.
                text = node.value
                if name in text and "\n" not in text and " " not in text:
                    found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {"workdir/folder.py"}


def test_code_does_not_read_config_keys_with_a_default():
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
