"""Damaged checkpoints: flipped bits, truncated files, missing files."""

import contextlib
import functools
import io
import pathlib
import shutil

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome
from fpn_jax.errors import InputError
from fpn_jax.modes.train import restore_newest
from fpn_jax.train.checkpoints import Checkpoints
from fpn_jax.train.state import TrainState
from fpn_jax.workdir.folder import Workdir


def flip_bit(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Flips one bit of one file of a checkpoint; returns which."""
    path = _random_file(step, rng)
    content = bytearray(path.read_bytes())
    bit = int(rng.integers(8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"bit {bit} of {path.relative_to(step)} flipped"


def truncate_file(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Truncates one file of a checkpoint; returns which."""
    path = _random_file(step, rng)
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content)))])
    return f"{path.relative_to(step)} truncated"


def delete_file(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Deletes one file of a checkpoint; returns which."""
    path = _random_file(step, rng)
    path.unlink()
    return f"{path.relative_to(step)} deleted"


def delete_half(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Deletes half of the files of a checkpoint, as an interrupted copy lacks them."""
    files = _files(step)
    deleted = rng.choice(len(files), max(1, len(files) // 2), replace=False)
    for index in deleted:
        files[index].unlink()
    return f"{len(deleted)} of {len(files)} files deleted"


def empty(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Deletes all files of a checkpoint, but not its folder."""
    shutil.rmtree(step)
    step.mkdir()
    return "an empty folder"


def _files(step: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files by size: Orbax's names are random, and would change the order.

    So the same draw damages the same file in every run.
    """
    files = (path for path in step.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: (path.stat().st_size, path))


def _random_file(step: pathlib.Path, rng: np.random.Generator) -> pathlib.Path:
    """Returns a random file that is not empty; all are equally likely."""
    files = [path for path in _files(step) if path.stat().st_size]
    return files[int(rng.integers(len(files)))]


DAMAGES = {
    "a bit flipped": flip_bit,
    "a file cut short": truncate_file,
    "a file gone": delete_file,
    "half of the files gone": delete_half,
    "an empty folder": empty,
}
"""Name → function that damages a checkpoint."""


class _Finished:
    """A run that has ended.

    Args:
      workdir: Workdir of the run.

    Attributes:
      like: Shapes of its state.
      saved: Step → bytes of the state, and meta.
      newest: Step of the newest checkpoint.
      best: Step of the best checkpoint.
    """

    def __init__(self, workdir: pathlib.Path):
        checkpoints = Checkpoints(Workdir(workdir).checkpoints, read_only=True)
        steps = checkpoints.steps()
        self.like = runs.like(checkpoints.meta(steps[-1]))
        self.saved = {
            step: (
                _bytes_of(checkpoints.restore(step, self.like)),
                checkpoints.meta(step),
            )
            for step in steps
        }
        self.newest, self.best = steps[-1], checkpoints.best_step()
        checkpoints.close()


_finished = functools.cache(_Finished)


def damaged(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, damage: str
) -> Outcome:
    """Damages the newest checkpoint of a copy of a run, and restores as a run does.

    The result is silently wrong if the restored state, its meta, or the best step are
    not those that were saved. Some damage changes none of them, because not every byte
    of a file has a meaning: that passes.

    Args:
      bench: Has the run without a fault.
      scratch: An empty folder.
      rng: Chooses the file and the bytes.
      damage: Key of `DAMAGES`.
    """
    finished = _finished(bench.uninterrupted)
    workdir = Workdir(scratch / "copy")
    shutil.copytree(bench.uninterrupted, workdir.path)
    newest = workdir.checkpoints / str(finished.newest)
    what, printed = DAMAGES[damage](newest, rng), io.StringIO()
    with contextlib.redirect_stderr(printed):
        try:
            checkpoints = Checkpoints(workdir.checkpoints, monitor="accuracy")
        except InputError as error:
            return Outcome(False, f"{what}: refused: {error}", {"silent": 0})
        try:
            restored = restore_newest(checkpoints, finished.like, workdir)
            best = checkpoints.best_step()
        finally:
            checkpoints.close()
    if restored is None:
        return Outcome(False, f"{what}: a new run was started", {"silent": 0})
    step, state, meta = restored
    equal = (_bytes_of(state), meta) == finished.saved[step]
    if step == finished.newest:
        passed = equal and best == finished.best
        result = "no effect" if passed else "silently wrong"
    else:
        passed = equal and _reports(printed.getvalue(), finished.newest, workdir)
        result = f"resumed from step {step}"
        if not passed:
            result = f"wrong at step {step}: {printed.getvalue()}"
    return Outcome(passed, f"{what}: {result}", {"silent": float(not passed)})


def _reports(printed: str, step: int, workdir: Workdir) -> bool:
    """Returns whether a damaged checkpoint was reported and moved."""
    moved = workdir.damaged_checkpoint(step)
    skipped = f"checkpoint skipped (damaged): step {step}"
    return skipped in printed and f"moved to {moved}" in printed and moved.is_dir()


def _bytes_of(state: TrainState) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in runs.arrays(state).items()}
