"""What disks do to checkpoints: flipped bits, files cut short, files that are gone."""

import contextlib
import functools
import io
import pathlib
import shutil

import jax
import numpy as np

from benchmarks.faults.runs import Bench, Outcome, described
from fpn_jax.errors import InputError
from fpn_jax.run import restore_newest
from fpn_jax.train.checkpoints import Checkpoints
from fpn_jax.train.state import TrainState


def flip_a_bit(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Flips one bit of one file of a checkpoint; returns which."""
    path = _some_file(step, rng)
    content = bytearray(path.read_bytes())
    place = int(rng.integers(8 * len(content)))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    return f"bit {place} of {path.relative_to(step)}"


def cut_a_file(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Cuts one file of a checkpoint short; returns which."""
    path = _some_file(step, rng)
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content)))])
    return f"{path.relative_to(step)} cut short"


def lose_a_file(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Takes one file of a checkpoint away; returns which."""
    path = _some_file(step, rng)
    path.unlink()
    return f"{path.relative_to(step)} gone"


def lose_half(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Leaves half of the files of a checkpoint, as a copy that was broken off."""
    files = _files(step)
    gone = rng.choice(len(files), max(1, len(files) // 2), replace=False)
    for place in gone:
        files[place].unlink()
    return f"{len(gone)} of {len(files)} files gone"


def empty(step: pathlib.Path, rng: np.random.Generator) -> str:
    """Leaves an empty folder of a checkpoint."""
    shutil.rmtree(step)
    step.mkdir()
    return "an empty folder"


def _files(step: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


def _some_file(step: pathlib.Path, rng: np.random.Generator) -> pathlib.Path:
    """Returns a file that is not empty: every one as likely as the others."""
    files = [path for path in _files(step) if path.stat().st_size]
    return files[int(rng.integers(len(files)))]


DAMAGES = {
    "a bit flipped": flip_a_bit,
    "a file cut short": cut_a_file,
    "a file gone": lose_a_file,
    "half of the files gone": lose_half,
    "an empty folder": empty,
}
"""Name → what is done to the newest checkpoint."""


class _Finished:
    """A run that ended, what its checkpoints hold, and what a state looks like."""

    def __init__(self, workdir: pathlib.Path):
        checkpoints = _open(workdir, read_only=True)
        steps = checkpoints.steps()
        self.like = described(checkpoints.meta(steps[-1]))
        self.whole = {
            step: (
                _bytes_of(checkpoints.restore(step, self.like)),
                checkpoints.meta(step),
            )
            for step in steps
        }
        self.newest, self.best = steps[-1], checkpoints.best_step()
        checkpoints.close()


_finished = functools.cache(_Finished)


def _open(workdir: pathlib.Path, read_only: bool = False) -> Checkpoints:
    return Checkpoints(workdir / "checkpoints", monitor="accuracy", read_only=read_only)


def damaged(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, damage: str
) -> Outcome:
    """Damages the newest checkpoint of a copy of a run, and goes on as a run would.

    Silently wrong is a state, a position or a ranking that is not the one saved; a
    damage that changes none of them, in bytes that say nothing, is none.
    """
    finished = _finished(bench.uninterrupted)
    shutil.copytree(bench.uninterrupted, scratch / "copy")
    newest = scratch / "copy" / "checkpoints" / str(finished.newest)
    what, said = DAMAGES[damage](newest, rng), io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            checkpoints = _open(scratch / "copy")
        except InputError as error:
            return Outcome(False, f"{what}: refused: {error}", {"silent": 0})
        try:
            found = restore_newest(checkpoints, finished.like)
            best = checkpoints.best_step()
        finally:
            checkpoints.close()
    if found is None:
        return Outcome(False, f"{what}: begun anew", {"silent": 0})
    at, state, meta = found
    right = (_bytes_of(state), meta) == finished.whole[at]
    if at == finished.newest:
        right = right and best == finished.best
        said = "no harm" if right else "silently wrong"
    else:
        right = right and str(finished.newest) in said.getvalue()
        said = f"back to step {at}" if right else f"wrong at step {at}"
    return Outcome(right, f"{what}: {said}", {"silent": float(not right)})


def _bytes_of(state: TrainState) -> list[tuple[str, bytes]]:
    state = state.replace(rng=jax.random.key_data(state.rng))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(p), np.asarray(x).tobytes()) for p, x in leaves]
