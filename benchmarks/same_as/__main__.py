"""Compares this working tree with another commit: do both measure the same?

    python -m benchmarks.same_as [COMMIT] [--root=DIR] [--weights=FILE] [--cases=a,b]

Both run the same trainings on this machine, each in a tree of its own. Batches,
metrics, checkpoints, predictions, evaluations and the outputs of exported models are
compared byte for byte. `DIR` holds photographs as Train and Validate × Cat/Dog, `FILE`
weights of mobilenet_v2. The exit code is 0 if everything is equal and 1 otherwise.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.same_as import measure, rows
from benchmarks.same_as.cases import CASES

BEFORE_THE_REBUILD = "7197151"
"""The last commit before the package was rebuilt."""
SHOWN = 5
"""Number of differences that are listed for a measurement."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
      case: Name of the case.
      what: What was compared.
      outcome: `"equal"`, `"differs"`, `"failed"`, `"not run"` or `"information"`.
      seconds: Seconds of the case in this tree; None where it did not run.
      details: The differences, the reason, or what is only information.
    """

    case: str
    what: str
    outcome: str
    seconds: float | None = None
    details: tuple[str, ...] = ()

    def text(self) -> str:
        """Returns the line, and its details below it."""
        seconds = "" if self.seconds is None else f"{self.seconds:.0f}"
        shown = [f"    {detail}" for detail in self.details[:SHOWN]]
        if len(self.details) > SHOWN:
            shown.append(f"    and {len(self.details) - SHOWN} more")
        head = f"{self.case:34} {self.what:20} {self.outcome:12} {seconds:>7}"
        return "\n".join([head.rstrip(), *shown])


def lines_of(
    case: str, old: measure.Measured, new: measure.Measured, seconds: float
) -> list[Line]:
    """Returns the lines of a case that ran on both sides.

    Args:
      case: Its name.
      old: What the other commit gave.
      new: What this tree gave.
      seconds: Seconds of the case in this tree.
    """
    lines = []
    for what in dict.fromkeys([*old, *new]):
        compared = rows.compare(what, old.get(what, {}), new.get(what, {}))
        outcome = "differs" if compared.differences else "equal"
        if what in rows.INFORMATION:
            outcome = "information"
        details = (*compared.differences, *compared.notes)
        label = f"{what} ({compared.rows})" if compared.rows else what
        lines.append(Line(case, label, outcome, seconds, details))
    return lines


@dataclasses.dataclass(frozen=True)
class Sides:
    """The two trees, and what their cases need.

    Attributes:
      sha: Full name of the other commit.
      other: Folder with the other commit's files.
      given: `root` and `weights` → path.
      images: Folder of the images to predict.
      fresh: Whether to ignore what earlier calls kept of the other commit.
    """

    sha: str
    other: Path
    given: Mapping[str, str]
    images: Path
    fresh: bool

    def old(self, name: str) -> measure.Measured:
        """Returns what the other commit gives, or gave in an earlier call."""
        kept = measure.cached_file(CASES[name], name, self.sha, self.given)
        if kept.exists() and not self.fresh:
            return json.loads(kept.read_text())
        measured = measure.measure(CASES[name], self.other, self.given, self.images)
        kept.parent.mkdir(parents=True, exist_ok=True)
        written = kept.with_suffix(".tmp")
        written.write_text(json.dumps(measured, indent=1))
        written.replace(kept)
        return measured

    def compare(self, name: str) -> list[Line]:
        """Runs a case on both sides and returns its lines of the table."""
        case = CASES[name]
        if missing := case.missing(self.given):
            needs = " and ".join(f"--{path}" for path in missing)
            return [Line(name, "", "not run", details=(f"needs {needs}",))]
        side = self.sha[:7]
        try:
            old = self.old(name)
            side = "this tree"
            began = time.monotonic()
            new = measure.measure(case, measure.REPOSITORY, self.given, self.images)
        except measure.RunFailed as error:
            return [Line(name, side, "failed", details=(str(error),))]
        return lines_of(name, old, new, time.monotonic() - began)


def all_equal(lines: Sequence[Line]) -> bool:
    """Returns whether something was compared, and nothing differs or failed."""
    outcomes = {line.outcome for line in lines}
    return "equal" in outcomes and not outcomes & {"differs", "failed"}


def summary(lines: Sequence[Line], sha: str) -> str:
    """Returns how many lines have which outcome, in words."""
    counts = collections.Counter(line.outcome for line in lines)
    counts.pop("information", None)
    shown = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f"this tree and {sha[:7]}: {shown}"


def full_name(commit: str) -> str:
    """Returns the full hash of a commit of this repository.

    Raises:
      ValueError: There is no such commit.
    """
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"],
        cwd=measure.REPOSITORY,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"{commit!r} is not a commit of {measure.REPOSITORY}")
    return done.stdout.strip()


@contextlib.contextmanager
def worktree(sha: str) -> Iterator[Path]:
    """Gives a temporary git worktree of a commit."""
    with tempfile.TemporaryDirectory(prefix="fpn_jax_same_as_") as folder:
        tree = Path(folder) / sha[:7]
        git = ["git", "-C", str(measure.REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", tree, sha], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)


def parse() -> argparse.Namespace:
    """Returns what the command line says; paths are absolute."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.same_as", description=__doc__.splitlines()[0]
    )
    parser.add_argument("commit", nargs="?", default=BEFORE_THE_REBUILD)
    parser.add_argument("--root", help="photographs, Train and Validate × Cat/Dog")
    parser.add_argument("--weights", help="a file of mobilenet_v2")
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument(
        "--fresh", action="store_true", help="run the other commit again"
    )
    given = parser.parse_args()
    given.cases = given.cases.split(",")
    for name in given.cases:
        if name not in CASES:
            parser.error(f"case {name!r} is unknown; choose of {', '.join(CASES)}")
    given.paths = {}
    for name in ("root", "weights"):
        if path := getattr(given, name):
            if not Path(path).exists():
                parser.error(f"--{name}={path} does not exist")
            given.paths[name] = str(Path(path).absolute())
    if given.jobs < 1:
        parser.error(f"--jobs={given.jobs} must be at least 1")
    try:
        given.sha = full_name(given.commit)
    except ValueError as error:
        parser.error(str(error))
    return given


def main() -> int:
    """Prints the table; returns 1 where something differs or fails."""
    given = parse()
    images = measure.cache_folder() / "images"
    measure.write_images(images)
    began, lines = time.monotonic(), []
    with worktree(given.sha) as other:
        for tree in (other, measure.REPOSITORY):
            measure.check_package(tree)
        sides = Sides(given.sha, other, given.paths, images, given.fresh)
        print(f"{'case':34} {'what (rows)':20} {'outcome':12} seconds", flush=True)
        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            for compared in pool.map(sides.compare, given.cases):
                lines += compared
                print("\n".join(line.text() for line in compared), flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{summary(lines, given.sha)} ({minutes:.1f} minutes)")
    return 0 if all_equal(lines) else 1


if __name__ == "__main__":
    sys.exit(main())
