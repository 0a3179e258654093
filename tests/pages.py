"""Reads the Markdown pages and finds what they name and what does not exist."""

import ast
import functools
import importlib
import importlib.util
import re
import runpy
import tomllib
from pathlib import Path

from fpn_jax import config, modes
from fpn_jax.layers import context, pooling, upsampling
from fpn_jax.resolve import REGISTRIES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "benchmarks" / "README.md"]
)
FOLDERS = ("fpn_jax", "configs", "docs", "tests", "benchmarks", "launch")
CHOICES = REGISTRIES | {
    "neck.upsampling": upsampling.REGISTRY,
    "neck.context": context.REGISTRY,
    "head.pool": pooling.REGISTRY,
}
"""Key of a config that holds a choice by name → its registry."""
PROCESS_FLAGS = {"distributed", "coordinator", "num_processes", "process_id"}
"""Flags of the modes that run in several processes."""
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
    """Returns path → text of the files that the how-to pages let the reader create."""
    blocks = [pair for page in PAGES for pair in fences(page.read_text())]
    return {
        info.removeprefix("python file="): block
        for info, block in blocks
        if info.startswith("python file=")
    }


@functools.cache
def added():
    """Returns the names that the how-to pages let the reader add to a table."""
    blocks = [pair for page in PAGES for pair in fences(page.read_text())]
    diffs = "\n".join(block for info, block in blocks if info.startswith("diff"))
    return set(re.findall(r'^\+.*"(\w+)": \w+', diffs, re.MULTILINE))


@functools.cache
def added_arguments():
    """Returns the arguments of the classes that the how-to pages add."""
    found = set()
    for block in created().values():
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.AnnAssign):
                found.add(ast.unparse(node.target))
            elif isinstance(node, ast.arg):
                found.add(node.arg)
    return found


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
    defined, code = {"help"}, file.read_text() if file.exists() else ""
    for node in ast.walk(ast.parse(code)):
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
        known = {"", *registry.names(), *added()}
        outside = re.fullmatch(r"my_?\w+:\w+", value)
        if value in known or outside or PLACEHOLDER.fullmatch(value):
            return None
        return f"{key} has no choice {value}"
    accepted = set()
    if parent in CHOICES:
        accepted = set().union(*map(CHOICES[parent].accepts, CHOICES[parent].names()))
        accepted |= added_arguments()
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
    takes, needs = modes.load(mode).TAKES, modes.load(mode).NEEDS
    several = mode in modes.SEVERAL_PROCESSES
    allowed = takes | {"mode", "help"} | (PROCESS_FLAGS if several else set())
    for flag in given:
        if flag.partition(".")[0] not in allowed:
            return f"--mode={mode} takes no --{flag}"
    missing = sorted(needs - given.keys())
    return f"--mode={mode} needs --{missing[0]}" if missing else None


def wrong_flags(snippet):
    """Yields what is wrong with the flags in a command or a span."""
    for command in re.split(r"&&|;| \| ", snippet):
        command = command.partition("  #")[0]
        program = re.search(r"python3? -m ([\w.]+)(?!\S)", command)
        tool = re.match(r"\s*(?:\w+=\S+ )*(pip|pytest|git|ruff|python3? )", command)
        words = re.findall(r"(?<!\S)--([a-z]\w*(?:\.[a-z]\w*)*)(?:=(\S+))?", command)
        given = {key: value.strip("'\"`.,;)") for key, value in words}
        ours = program and program[1].split(".")[0] in FOLDERS
        if tool and not ours:
            continue
        if program and wrong_name(program[1]):
            yield wrong_name(program[1])
            continue
        known = flags_of(program[1]) if program else all_flags()
        for flag, value in given.items():
            if flag.startswith("config."):
                yield wrong_key(flag.removeprefix("config."), value)
            elif flag not in known:
                yield f"there is no --{flag}"
            elif flag == "mode" and value and not program:
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
    return [problem for problem in dict.fromkeys(found) if problem]
