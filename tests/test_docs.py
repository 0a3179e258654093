"""The pages: what they name exists, what they show runs, what they list is complete."""

import re
import shutil
import subprocess
import sys

import pytest

from fpn_jax.data import records
from tests import test_architecture
from tests.pages import CHOICES, DOCS, PAGES, ROOT, defaults, fences, problems

DECIDED = {
    "": {"num_classes", "dtype", "axis_name"},
    "neck.context": {"width"},
    "neck.upsampling": {"size"},
    "head.pool": {"window", "stride", "padding"},
}
"""Key of a choice → arguments that the model or its owner decides; "" is for all."""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_everything_that_a_page_names_exists(page):
    assert problems(page, page.read_text()) == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("`fpn_jax/modles/pool.py`", "`fpn_jax/heads/pool.py`"),
        ("`tests/**/test_poool.py`", "`tests/**/test_pooling.py`"),
        ("`configs/fpn.py:smock`", "`configs/fpn.py:smoke`"),
        ("[the map](WORKPLACE.md)", "[the map](WORKSPACE.md)"),
        ("[the map](WORKSPACE.md#roms)", "[the map](WORKSPACE.md#rooms)"),
        ("`fpn_jax.heads.HEAD`", "`fpn_jax.heads.HEADS`"),
        ("`fpn_jax.head`", "`fpn_jax.heads`"),
        ("`--outptu`", "`--output`"),
        ("`--mode=predicts`", "`--mode=predict`"),
        ("`--config.data.rot=DIR`", "`--config.data.root=DIR`"),
        ("`--config.data.source=disk`", "`--config.data.source=folder`"),
        ("`--config.head.pool=gme`", "`--config.head.pool=gem`"),
        ("`--config.head.pool.q=3`", "`--config.head.pool.p=3`"),
        ("`optimizer.learning_rat`", "`optimizer.learning_rate`"),
        ("`python -m benchmarks.trian_step`", "`python -m benchmarks.train_step`"),
        (
            "`python -m benchmarks.input --rot=D`",
            "`python -m benchmarks.input --root=D`",
        ),
        ('`pip install -e ".[tets]"`', '`pip install -e ".[test]"`'),
        ("`launch/tpu_vm.sh crate`", "`launch/tpu_vm.sh create`"),
        (
            "```\npython -m fpn_jax.main --mode=predict --workdir=W\n```",
            "```\npython -m fpn_jax.main --mode=predict --workdir=W --input=I\n```",
        ),
        (
            "```\npython -m fpn_jax.main --mode=list --split=test\n```",
            "```\npython -m fpn_jax.main --mode=evaluate --workdir=W --split=test\n```",
        ),
        (
            "```python\nfrom fpn_jax.heads import PoolClasifier\n```",
            "```python\nfrom fpn_jax.heads import PoolClassifier\n```",
        ),
        (
            "| new | old |\n|---|---|\n| `fpn_jax.x` | b |",
            "| old | new |\n|---|---|\n| `fpn_jax.x` | b |",
        ),
    ],
)
def test_the_checker_finds_a_planted_mistake(wrong, right):
    assert len(problems(ROOT / "page.md", f"{wrong}\n")) == 1
    assert problems(ROOT / "page.md", f"{right}\n") == []


def runnable():
    """Returns the pages that have blocks to run."""
    pages = {page: [info for info, _ in fences(page.read_text())] for page in PAGES}
    return [page for page in pages if "python run" in pages[page]]


@pytest.mark.parametrize("page", runnable(), ids=lambda p: p.name)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    shared = {}
    for info, block in fences(page.read_text()):
        if info == "python run":
            exec(compile(block, str(page), "exec"), shared)


def apply_diff(old, diff):
    """Returns a text with the lines of a diff block added and removed, in one place."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    assert old.count(before) == 1, f"the diff fits {old.count(before)} places: {diff}"
    return old.replace(before, after)


def follow(page, root):
    """Does what a how-to page says; returns the test files that it creates."""
    tests = []
    for info, block in fences(page.read_text()):
        kind, given, name = info.partition(" file=")
        path = root / name
        if given and kind == "python":
            assert not path.exists(), f"{page.name} creates {name}, which exists"
            path.write_text(block)
            tests += [name] if path.name.startswith("test_") else []
        elif given and kind == "diff":
            path.write_text(apply_diff(path.read_text(), block))
    assert tests, f"{page.name} has no test"
    return tests


def test_the_how_to_pages_can_be_followed(tmp_path):
    root = tmp_path / "project"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "runs", "results")
    shutil.copytree(ROOT, root, ignore=ignored)
    tests = []
    for page in sorted((DOCS / "how-to").glob("*.md")):
        tests += follow(page, root)
    # The rules of the project hold for the new files too.
    rules = ["tests/test_architecture.py", "tests/test_conventions.py"]
    command = [sys.executable, "-m", "pytest", "-q", *tests, *rules]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    lint = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    done = subprocess.run(lint, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


def test_a_diff_that_does_not_fit_is_refused():
    assert apply_diff("a\nb\n", " a\n+x\n") == "a\nx\nb\n"
    with pytest.raises(AssertionError, match="fits 0 places"):
        apply_diff("a\nb\n", " c\n+x\n")


def rows(text):
    """Yields the cells of every row of the tables of a page, stripped."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            yield [cell.strip().replace("\\|", "|") for cell in cells]


def test_the_index_of_decisions_is_complete():
    folder, entries = DOCS / "decisions", []
    for number, path in enumerate(sorted(folder.glob("0*.md")), 1):
        text = path.read_text()
        title = re.match(rf"# {number:04d}\. (.+)\n\nDate: (\d{{4}}-\d\d-\d\d)\n", text)
        assert title, f"{path.name}: number, title or date"
        assert re.search(r"^Status: (accepted|superseded)", text, re.MULTILINE), path
        sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert sections == ["Context", "Decision", "Consequences"], path
        entries.append([f"[{number:04d}]({path.name})", title[1], title[2]])
    listed = [
        row for row in rows((folder / "README.md").read_text()) if row[0][0] == "["
    ]
    assert listed == entries


def test_the_reference_has_every_key_of_a_config():
    text = (DOCS / "reference" / "configs.md").read_text()
    listed = {r[0].strip("`"): r[3].strip("`") for r in rows(text) if len(r) == 5}
    del listed["key"]
    assert listed == {key: repr(value) for key, value in defaults().items()}


@pytest.mark.parametrize("key", CHOICES)
def test_the_reference_has_every_choice_and_its_arguments(key):
    text = (DOCS / "reference" / "configs.md").read_text()
    section = re.search(rf"^### .*`{key}`\n([\s\S]*?)(?=^#|\Z)", text, re.MULTILINE)
    assert section, f"configs.md has no section for {key}"
    registry, listed = CHOICES[key], {}
    for names, arguments in rows(section[1]):
        for name in re.findall(r"`(\w+)`", names):
            listed[name] = set(re.findall(r"`(\w+)`", arguments))
    assert listed == {
        name: set(registry.accepts(name)) - DECIDED.get(key, set()) - DECIDED[""]
        for name in registry.names()
    }


def test_the_reference_has_every_field_of_a_record():
    text = (DOCS / "reference" / "records.md").read_text()
    listed = [r[:5] for r in rows(text) if r[0].startswith("`")]
    expected = [
        [
            f"`{name}`",
            f"`{field.dtype}`",
            f"`{field.shape}`",
            field.kind,
            f"`{field.padding}`",
        ]
        for name, field in records.FIELDS.items()
    ]
    assert listed == expected


def test_the_map_has_every_room():
    text = (ROOT / "WORKSPACE.md").read_text()
    ((_, tree),) = [block for block in fences(text) if "fpn_jax/" in block[1]]
    package = tree.split("configs/")[0]
    found = set(re.findall(r"^  (\w+)(?:/|\.py) ", package, re.MULTILINE))
    found |= set(package.strip().splitlines()[-1].split())
    rooms = {p.stem for p in (ROOT / "fpn_jax").iterdir() if p.suffix in ("", ".py")}
    assert found == rooms - {"__init__", "__pycache__"}


def test_the_map_has_every_arrow():
    text = (ROOT / "WORKSPACE.md").read_text()
    section = text.split("## Arrows")[1].split("\n## ")[0]
    listed = {}
    for row in rows(section):
        for room in re.findall(r"`(\w+)`", row[0]):
            listed[room] = set(re.findall(r"`(\w+)`", row[1]))
    assert listed == {room: set(to) for room, to in test_architecture.ROOMS.items()}
