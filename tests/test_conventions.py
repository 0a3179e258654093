"""Conventions that a reader may rely on, checked over the whole package."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import fpn_jax

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "fpn_jax").rglob("*.py"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fpn_jax.__path__, "fpn_jax.")
    # Defines the flags of the process that imports it.
    if module.name != "fpn_jax.main"
)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_public_name_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    for key, value in vars(module).items():
        if key.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{name}.{key}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            # A docstring is the first statement of a body.
            first = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            code, total = node.end_lineno - first, node.end_lineno - node.lineno + 1
            assert code <= 60, f"{path}: {node.name} has {code} lines of code"
            assert total <= 80, f"{path}: {node.name} has {total} lines"


def test_no_room_has_an_empty_name():
    names = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    allowed = {("tasks", "base.py"), ("views", "base.py")}
    found = [p for p in FILES if p.stem in names and p.parts[-2:] not in allowed]
    assert found == []


@pytest.mark.parametrize("module", [m for m in MODULES if ".ops." in m])
def test_ops_know_no_flax(module):
    assert "flax" not in inspect.getsource(importlib.import_module(module))


def test_the_flax_modules_name_what_owns_parameters():
    """A submodule without `name=` gets a number, which moves when a line is added."""
    owners = re.compile(r"nn\.(?:Dense|Conv|BatchNorm|GroupNorm)|Conv")
    for path in FILES:
        if path.parts[-2] not in ("layers", "backbones", "necks", "heads"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and owners.fullmatch(ast.unparse(node.func)):
                keywords = {keyword.arg for keyword in node.keywords}
                assert "name" in keywords or None in keywords, (
                    f"{path}:{node.lineno} {ast.unparse(node)[:60]}"
                )
