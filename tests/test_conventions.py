"""Conventions of the code that a machine can check."""

import ast
import importlib
import inspect
import io
import pkgutil
import re
import tokenize
from pathlib import Path

import pytest

import fpn_jax

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "fpn_jax").rglob("*.py"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fpn_jax.__path__, "fpn_jax.")
    # Importing fpn_jax.main would define absl flags.
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


def test_no_module_has_a_meaningless_name():
    names = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    allowed = {("tasks", "base.py"), ("views", "base.py")}
    found = [p for p in FILES if p.stem in names and p.parts[-2:] not in allowed]
    assert found == []


@pytest.mark.parametrize("module", [m for m in MODULES if ".ops." in m])
def test_ops_do_not_use_flax(module):
    assert "flax" not in inspect.getsource(importlib.import_module(module))


def test_flax_submodules_with_parameters_have_names():
    """Without `name=`, Flax numbers submodules, so a new line would rename others."""
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


VAGUE = {"It", "Its", "They", "Of", "What", "Where", "As", "Said", "Made", "Sent"}
"""First words with which a comment does not name what it speaks of."""

UNCLEAR = {
    "alike": "the same, or near-duplicate",
    "comes along": "is set by",
    "goes on": "resumes",
    "left out": "skipped, or omitted",
    "poolings": "pooling layers, or pooling operations",
    "rehearses": "simulates",
    "said by": "set by",
    "set aside": "moved",
    "strangers": "untrusted files",
    "the best one": "the best checkpoint",
    "told of": "reported",
    "whoever": "the user, or those who",
}
"""Words and phrases that newcomers did not understand → what to write instead."""

TEXTS = sorted(
    path
    for folder in ("fpn_jax", "configs", "launch")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".html", ".css", ".sh", ".sbatch")
)


def comments(source):
    """Returns each block of comment lines as one text, without `#`."""
    blocks, last = [], None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            follows = last == token.start[0] - 1 and token.line.lstrip()[0] == "#"
            if not follows:
                blocks.append([])
            blocks[-1].append(token.string.lstrip("#: "))
            last = token.start[0]
    return [" ".join(block) for block in blocks]


def unclear(text):
    """Returns the words and phrases of a text that are in `UNCLEAR`."""
    phrases = [form for key in UNCLEAR for form in (key, key.capitalize())]
    return re.findall(rf"\b(?:{'|'.join(phrases)})\b", " ".join(text.split()))


def test_comments_and_unclear_words_are_found():
    source = "# It is\n# one.\nx = 1  # Two.\n\n# Three.\n"
    assert comments(source) == ["It is one.", "Two.", "Three."]
    assert unclear("Poolings,\nPOOLINGS and all that goes\n  on") == [
        *("Poolings", "goes on")
    ]


@pytest.mark.parametrize(
    "path",
    [path for path in TEXTS if path.suffix == ".py"],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_comments_name_what_they_speak_of(path):
    texts = comments(path.read_text())
    vague = [text for text in texts if VAGUE.intersection(text.split()[:1])]
    assert vague == [], "begin the comment with its subject"


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_texts_have_no_unclear_words(path):
    found = unclear(path.read_text())
    assert found == [], [UNCLEAR[phrase.lower()] for phrase in found]
