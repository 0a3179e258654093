"""The pages: what they name exists, what they show runs, what they list is complete."""

import ast
import functools
import importlib
import importlib.util
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fpn_jax import backbones, config, heads, modes, necks, tasks
from fpn_jax.data import records, sources
from fpn_jax.layers import context, pooling, upsampling
from fpn_jax.train import optimizer
from tests import test_architecture

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "benchmarks" / "README.md"]
)
FOLDERS = ("fpn_jax", "configs", "docs", "tests", "benchmarks", "launch")
CHOICES = {
    "backbone": backbones.REGISTRY,
    "neck": necks.REGISTRY,
    "neck.upsampling": upsampling.REGISTRY,
    "neck.context": context.REGISTRY,
    "head": heads.REGISTRY,
    "head.pool": pooling.REGISTRY,
    "data.source": sources.REGISTRY,
    "task": tasks.REGISTRY,
    "optimizer": optimizer.REGISTRY,
}
"""Key of a config that holds a choice by name → its registry."""
PLACEHOLDER = re.compile(r"[A-Z][A-Z_0-9]*|.*…")
"""A word that stands for the reader's own: `DIR`, `NAME`."""

FENCE = re.compile(r"^```(.*)\n([\s\S]*?)^```$", re.MULTILINE)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


def fences(text):
    """Returns the info string and the content of every fenced block."""
    return [match.groups() for match in FENCE.finditer(text)]


def prose(text):
    """Returns a page without fenced blocks and without columns of old spellings."""
    lines, old = [], False
    for line in FENCE.sub("", text).splitlines():
        cells = line.split("|")
        in_table = line.startswith("|")
        old = in_table and (old or cells[1].strip() == "old")
        lines.append("|".join(cells[2:]) if old else line)
    return "\n".join(lines)


def snippets(text):
    """Yields every piece of code: a span, a line of a block, a joined command."""
    for match in SPAN.finditer(prose(text)):
        yield " ".join(match[2].split())
    for _, block in fences(text):
        yield from block.replace("\\\n", " ").splitlines()


@functools.cache
def created():
    """Returns the files that the how-to pages let the reader create."""
    infos = [info for page in PAGES for info, _ in fences(page.read_text())]
    return {info.split("file=")[1] for info in infos if "file=" in info}


def wrong_path(path):
    """Returns what is wrong with a path of the project, or None."""
    path, _, variant = path.rstrip(".,;:").partition(":")
    if path in created():
        return None
    if not any(ROOT.glob(path.rstrip("/"))):
        return f"there is no {path}"
    if variant and not PLACEHOLDER.fullmatch(variant) and path.startswith("configs/"):
        try:
            runpy.run_path(str(ROOT / path))["get_config"](variant)
        except ValueError:
            return f"{path} has no variant {variant}"
    return None


def wrong_link(page, target):
    """Returns what is wrong with a relative link, or None."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return f"the link {target} leads nowhere"
    if anchor:
        titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
        slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
        if anchor not in slugs:
            return f"the link {target} names no heading"
    return None


def wrong_name(name):
    """Returns what is wrong with a dotted name, or None."""
    parts, rest = name.split("."), []
    while parts:
        if f"{'/'.join(parts)}.py" in created():
            return None
        try:
            if importlib.util.find_spec(".".join(parts)) is not None:
                break
        except ModuleNotFoundError:
            pass
        rest.insert(0, parts.pop())
    found = importlib.import_module(".".join(parts)) if parts and rest else None
    for attribute in rest:
        if not hasattr(found, attribute):
            return f"there is no {name}"
        found = getattr(found, attribute)
    return None


@functools.cache
def flags_of(module):
    """Returns the flags that a module of the command line defines."""
    file = ROOT / module.replace(".", "/")
    file = file / "__main__.py" if file.is_dir() else file.with_suffix(".py")
    defined = {"help"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name == "add_argument" or name.startswith("DEFINE_"):
                defined.add(ast.literal_eval(node.args[0]).removeprefix("--"))
    return frozenset(defined)


@functools.cache
def all_flags():
    """Returns the flags of all programs of the project."""
    files = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "fpn_jax").rglob("*.py")]
    defining = [p for p in files if re.search(r"add_argument|DEFINE_", p.read_text())]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in defining]
    return frozenset().union(
        *(flags_of(name.removesuffix(".__main__")) for name in names)
    )


@functools.cache
def defaults():
    """Returns dotted key → value of configs/fpn.py; a choice's name has no key."""
    file = runpy.run_path(str(ROOT / "configs" / "fpn.py"))["get_config"]()
    return config.flat(file.to_dict())


def wrong_key(key, value=""):
    """Returns what is wrong with a key of a config and its value, or None."""
    parent, _, last = key.rpartition(".")
    if key in CHOICES or (last == "name" and parent in CHOICES):
        registry = CHOICES[key if key in CHOICES else parent]
        known = value in registry.names() or PLACEHOLDER.fullmatch(value)
        return None if not value or known else f"{key} has no choice {value}"
    accepted = set()
    if parent in CHOICES:
        accepted = set().union(*map(CHOICES[parent].accepts, CHOICES[parent].names()))
    sections = any(k.startswith(f"{key}.") for k in defaults())
    if key in defaults() or sections or last in accepted:
        return None
    return f"a config has no key {key}"


def wrong_mode(given):
    """Returns what is wrong with the flags of a command of `fpn_jax.main`, or None."""
    mode = given.get("mode", "train")
    if PLACEHOLDER.fullmatch(mode):
        return None
    if mode not in modes.MODES:
        return f"there is no --mode={mode}"
    takes, needs = modes.MODES[mode].TAKES, modes.MODES[mode].NEEDS
    for flag in given:
        optional = {"mode", "help", "distributed", "coordinator"}
        if flag not in takes and flag not in optional and "." not in flag:
            return f"--mode={mode} takes no --{flag}"
    missing = sorted(set(needs) - given.keys())
    return f"--mode={mode} needs --{missing[0]}" if missing else None


def wrong_flags(snippet):
    """Yields what is wrong with the flags in a command or a span."""
    for command in re.split(r"&&|;| \| ", snippet):
        command = command.partition("  #")[0]
        program = re.search(r"python3? -m ([\w.]+)", command)
        tool = re.match(r"\s*(?:\w+=\S+ )*(pip|pytest|git|ruff|python3? )", command)
        words = re.findall(r"(?<!\S)--([a-z][\w.]*)(?:=(\S+))?", command)
        given = {key: value.strip("'\"`.,;)") for key, value in words}
        if program and importlib.util.find_spec(program[1].split(".")[0]) is None:
            yield f"there is no module {program[1]}"
            continue
        ours = program and program[1].split(".")[0] in FOLDERS
        if tool and not ours:
            continue
        known = flags_of(program[1]) if program else all_flags()
        for flag, value in given.items():
            if flag.startswith("config."):
                yield wrong_key(flag.removeprefix("config."), value)
            elif flag not in known:
                yield f"there is no --{flag}"
            elif flag == "mode" and not program:
                unknown = value not in modes.MODES and not PLACEHOLDER.fullmatch(value)
                yield f"there is no --mode={value}" if unknown else None
        if (program and program[1] == "fpn_jax.main") or " -- --" in command:
            yield wrong_mode(given)


def wrong_imports(info, block):
    """Yields what is wrong with the imports of a Python block."""
    if not info.startswith("python"):
        return
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in FOLDERS:
            for alias in node.names:
                yield wrong_name(f"{node.module}.{alias.name}")


def wrong_subcommand(snippet):
    """Yields what is wrong with the words after a launch script."""
    for script, word in re.findall(r"(launch/tpu_vm\.sh) (\w+)", snippet):
        if not re.search(rf"^  {word}\b", (ROOT / script).read_text(), re.MULTILINE):
            yield f"{script} has no {word}"


@functools.cache
def extras():
    """Returns the optional dependencies of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return frozenset(project["optional-dependencies"])


def problems(page, text):
    """Returns everything that a page names and that does not exist.

    Args:
      page: Its path, from which relative links start.
      text: Its Markdown.
    """
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if not target.startswith(("http:", "https:")):
            found.append(wrong_link(page, target))
    for info, block in fences(text):
        found += wrong_imports(info, block)
    for snippet in snippets(text):
        paths = rf"(?<![\w/.])(?:{'|'.join(FOLDERS)})/[\w./*:-]*"
        found += [wrong_path(path) for path in re.findall(paths, snippet)]
        names = r"(?<![\w/.])(?:fpn_jax|benchmarks)(?:\.[A-Za-z_]\w*)+(?!/)"
        found += [wrong_name(n) for n in re.findall(names, snippet)]
        found += wrong_flags(snippet)
        found += wrong_subcommand(snippet)
        for names in re.findall(r"\.\[([\w,]+)\]", snippet):
            found += [f"no extra {n}" for n in names.split(",") if n not in extras()]
        sections = "|".join(sorted({key.split(".")[0] for key in defaults()}))
        if re.fullmatch(rf"(?:{sections})(?:\.[a-z_]+)+", snippet):
            found.append(wrong_key(snippet))
    return [problem for problem in found if problem]


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
    registry = CHOICES[key]
    expected = {}
    for name in registry.names():
        expected[f"`{name}`"] = {f"`{a}`" for a in registry.accepts(name)}
    listed = {r[0]: set(re.findall("`[^`]+`", r[1])) for r in rows(section[1])}
    listed.pop("name")
    assert listed.keys() == expected.keys()
    for name in expected:
        assert listed[name] <= expected[name], name


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
