"""The pages: what they name exists, what they show runs, what they list is complete."""

import ast
import re
import shutil
import subprocess
import sys

import pytest

from fpn_jax import config, modes
from fpn_jax.data import records
from tests import test_architecture
from tests.pages import CHOICES, DOCS, PAGES, ROOT, defaults, fences, problems

REFERENCE = DOCS / "reference"
DECIDED = {
    "": {
        "num_classes",
        "num_mask_classes",
        "num_landmarks",
        "dtype",
        "axis_name",
        "cell_offset",
        "num_anchors",
    },
    "data.source": {
        *("split", "root", "image_size", "background", "encoded", "model_classes")
    },
    "neck.context": {"width"},
    "neck.upsampling": {"size"},
    "head.pool": {"window", "stride", "padding"},
}
"""Key of a choice → arguments that the code decides; "" is for all."""
NUMBER = {
    "backbone": 29,
    "neck": 7,
    "neck.upsampling": 8,
    "neck.context": 3,
    "head": 10,
    "head.pool": 13,
    "data.source": 7,
    "task": 5,
    "optimizer": 2,
}
"""Key of a choice → names that the reference has at least; a new one works without."""


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
    # A page is followed in the folder of the project; what it writes stays outside.
    (tmp_path / "configs").symlink_to(ROOT / "configs")
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
    """Does what a how-to page says; returns the files it creates, and changes."""
    created, changed = [], set()
    for info, block in fences(page.read_text()):
        kind, given, name = info.partition(" file=")
        path = root / name
        if given and kind == "python":
            assert not path.exists(), f"{page.name} creates {name}, which exists"
            path.write_text(block)
            created.append(name)
        elif given and kind == "diff":
            path.write_text(apply_diff(path.read_text(), block))
            changed.add(name)
    return created, changed


HOW_TO = {
    "add-a-backbone": ["fpn_jax/backbones/__init__.py"],
    "add-a-head": ["fpn_jax/heads/__init__.py"],
    "add-a-neck": ["fpn_jax/necks/__init__.py"],
    "add-a-pooling": ["fpn_jax/layers/pooling.py"],
    "add-a-source": ["fpn_jax/data/sources/__init__.py"],
    "add-a-task": ["fpn_jax/heads/__init__.py", "fpn_jax/tasks/__init__.py"],
    "add-a-view": ["fpn_jax/tasks/silhouette.py", "fpn_jax/views/__init__.py"],
    "your-own-part-from-outside": [],
}
"""How-to page → the files of the package that it changes: one for each new file."""
SWEEP = "tests/test_sweep.py"
"""The file that tests every part that a table names."""
ADDED_PARTS = (
    *("backbone-plain", "neck-laterals", "head-level_mix", "head-pixel"),
    *("pool-range", "window-range"),
)
"""Cases of the sweep that the how-to pages add."""


def test_the_how_to_pages_can_be_followed(tmp_path):
    root = tmp_path / "project"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "results")
    shutil.copytree(ROOT, root, ignore=ignored)
    pages = (DOCS / "how-to").glob("*.md")
    assert set(HOW_TO) == {page.stem for page in pages if " file=" in page.read_text()}
    files = []
    for name, expected in HOW_TO.items():
        created, changed = follow(DOCS / "how-to" / f"{name}.md", root)
        assert sorted(changed) == expected, name
        tests = [path for path in created if "test_" in path]
        assert len(tests) == 1, f"{name} has {len(tests)} tests"
        new = [path for path in created if path.startswith("fpn_jax/")]
        # The page of the view changes a line of the task, which is no table.
        tables = [path for path in changed if "silhouette" not in path]
        assert len(new) == len(tables), name
        files += created
    run_in(root, "ruff", "check", "--no-cache", *files)
    run_in(root, "ruff", "format", "--no-cache", "--check", *files)
    tests = [path for path in files if "test_" in path]
    # The rules of the project hold for the new files too, and the sweep finds them.
    rules = ["tests/test_architecture.py", "tests/test_conventions.py"]
    rules += ["tests/views/test_views.py"]
    text = (ROOT / SWEEP).read_text()
    swept = re.findall(r"^@every_part\ndef (\w+)", text, re.MULTILINE)
    sweep = [f"{SWEEP}::{name}[{part}]" for name in swept for part in ADDED_PARTS]
    assert len(sweep) > len(ADDED_PARTS)
    run_in(root, "pytest", "-q", *tests, *rules, *sweep)


def run_in(root, *command):
    """Runs a module in a copy of the project; it must succeed."""
    command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


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
    text = (REFERENCE / "configs.md").read_text()
    listed = {r[0].strip("`"): r[3].strip("`") for r in rows(text) if len(r) == 5}
    del listed["key"]
    assert listed == {key: repr(value) for key, value in defaults().items()}


@pytest.mark.parametrize("key", CHOICES)
def test_the_reference_has_the_choices_and_their_arguments(key):
    text = (REFERENCE / "configs.md").read_text()
    section = re.search(rf"^### .*`{key}`\n([\s\S]*?)(?=^#|\Z)", text, re.MULTILINE)
    assert section, f"configs.md has no section for {key}"
    registry, listed = CHOICES[key], {}
    for names, arguments in rows(section[1]):
        for name in re.findall(r"`(\w+)`", names):
            listed[name] = set(re.findall(r"`(\w+)`", arguments))
    decided = DECIDED[""] | DECIDED.get(key, set())
    assert listed == {name: set(registry.accepts(name)) - decided for name in listed}
    assert len(listed) >= NUMBER[key]


def test_the_how_to_page_says_what_a_class_from_outside_needs():
    page = DOCS / "how-to" / "your-own-part-from-outside.md"
    listed = {
        row[0].strip("`"): (
            row[1].strip("`").rpartition(".")[2],
            set(re.findall(r"`(\w+)`", row[2])),
        )
        for row in rows(page.read_text())
        if len(row) == 4
    }
    del listed["key of the config"]
    assert listed == {
        key: (
            registry._base.__name__.replace("object", ""),
            set(registry._members) - {"__call__"},
        )
        for key, registry in CHOICES.items()
    }


def test_the_reference_has_every_field_of_a_record():
    assert records.describe() in (REFERENCE / "records.md").read_text()


COMMAND_LINE = (REFERENCE / "command-line.md").read_text()


def test_the_reference_has_every_flag_and_its_default():
    tree = ast.parse((ROOT / "fpn_jax" / "main.py").read_text())
    defined = {
        f"`--{node.args[0].value}`": f"`{node.args[1].value!r}`"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "DEFINE_" in ast.unparse(node.func)
    }
    listed = {row[0]: row[1] for row in rows(COMMAND_LINE) if row[0].startswith("`--")}
    assert {flag: listed.get(flag) for flag in defined} == defined
    old = re.findall(r"^\| `--config\.", COMMAND_LINE, re.MULTILINE)
    assert len(listed) == len(defined) + len(old)


def test_the_reference_has_every_mode_and_its_flags():
    listed = {}
    for row in rows(COMMAND_LINE):
        if len(row) == 3 and re.fullmatch(r"`[a-z]+`", row[0]):
            needed, _, optional = row[2].partition("[")
            found = (re.findall(r"--(\w+)", part) for part in (needed, optional))
            listed[row[0].strip("`")] = tuple(map(set, found))
    loaded = {name: modes.load(name) for name in modes.MODES}
    assert listed == {
        name: (set(mode.NEEDS), set(mode.TAKES - mode.NEEDS))
        for name, mode in loaded.items()
    }


@pytest.mark.parametrize("page", ["CHANGELOG.md", "docs/reference/command-line.md"])
def test_an_old_key_is_answered_with_the_new_one(page):
    listed = {}
    for old, new, *_ in (row for row in rows((ROOT / page).read_text()) if row[1:]):
        if match := re.fullmatch(r"`--config\.([\w.]+)`", old):
            listed[match[1]] = new
    assert {key: f"`--config.{config.new_spelling(key)}`" for key in listed} == listed
    for old in config.RENAMED:
        assert any(f"{key}.".startswith(f"{old}.") for key in listed), old


def test_a_renamed_module_is_gone():
    text = (ROOT / "CHANGELOG.md").read_text()
    old = [name for row in rows(text) for name in re.findall(r"fpn_jax[\w.]+", row[0])]
    assert len(old) > 20
    present = {name for name in old if (ROOT / f"{name.replace('.', '/')}.py").exists()}
    # Its command names the new one.
    assert present == {"fpn_jax.data.tfds"}


def test_the_index_has_every_page():
    text = (DOCS / "index.md").read_text()
    targets = re.findall(r"\]\(([^)#\s]+)\)", text)
    linked = {(DOCS / target).resolve() for target in targets}
    linked.add(DOCS / "index.md")
    missing = [p for p in PAGES if p not in linked and not re.match(r"\d", p.name)]
    assert missing == []


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
