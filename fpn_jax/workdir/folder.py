"""The folder of a run: the names of its files, and its config."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from fpn_jax import config as configs
from fpn_jax.config import Config
from fpn_jax.errors import InputError
from fpn_jax.train import parallel
from fpn_jax.train.checkpoints import Checkpoints, DamagedCheckpoint
from fpn_jax.workdir import lock

MAY_CHANGE = ("data.root", "data.num_threads", "data.num_workers", "data.on_bad_file")
"""Keys that may change when a run resumes, because batches do not depend on them."""


class Workdir:
    """The folder of a run.

    Args:
      path: The folder, which need not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def config(self) -> Path:
        """The run's config, as JSON."""
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, which has one folder per step."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The metrics of the training, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def lock(self) -> Path:
        """The file that a running training locks."""
        return self.path / "training.lock"

    def damaged_checkpoint(self, step: int) -> Path:
        """Returns the folder to which a damaged checkpoint is moved.

        Args:
          step: Step of the checkpoint.
        """
        return self.path / f"damaged_checkpoint_{step}"

    def report(self, split: str) -> Path:
        """Returns the path of the report on a split.

        Args:
          split: `validate`, whose report is `report.html`, or another split.
        """
        name = "report.html" if split == "validate" else f"report_{split}.html"
        return self.path / name

    def evaluation(self, split: str) -> Path:
        """Returns the path of the metrics of a split, a JSON file.

        Args:
          split: Name of the split.
        """
        return self.path / f"evaluation_{split}.json"

    def mistakes(self, split: str) -> Path:
        """Returns the path of the table of wrong predictions, a CSV file.

        Args:
          split: Name of the split.
        """
        return self.path / f"mistakes_{split}.csv"

    def is_begun(self) -> bool:
        """Returns whether the run has a checkpoint, so that its config is fixed."""
        # The names of unfinished checkpoints contain more than digits.
        return any(path.name.isdigit() for path in self.checkpoints.glob("*"))

    def stored_config(self) -> dict[str, Any]:
        """Returns the config of the run, in today's form.

        Raises:
          InputError: The config does not exist, or cannot be read.
        """
        if not self.config.exists() and self.is_begun():
            return self.checkpoint_config()
        try:
            stored = json.loads(self.config.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise InputError(
                f"{self} is not a run directory: {self.config.name} cannot be read: "
                f"{error.strerror}"
            ) from error
        except ValueError as error:
            raise InputError(
                f"{self.config} is not JSON in UTF-8 ({error}); remove it: the "
                "checkpoints contain the config, too"
            ) from error
        if not isinstance(stored, dict) or not {"model", "backbone"} <= stored.keys():
            raise InputError(
                f"{self} is not a run directory, according to its {self.config.name}; "
                "to use a file of weights, give the file itself"
            )
        return _upgraded(stored, self.config)

    def checkpoint_config(self) -> dict[str, Any]:
        """Returns the config in the newest intact checkpoint, in today's form.

        Raises:
          InputError: The meta of every checkpoint is damaged.
        """
        checkpoints = Checkpoints(self.checkpoints, read_only=True)
        try:
            for step in reversed(checkpoints.steps()):
                with contextlib.suppress(DamagedCheckpoint):
                    return _upgraded(checkpoints.meta(step)["config"], self.path)
        finally:
            checkpoints.close()
        raise InputError(
            f"all checkpoints in {self} are damaged; they are not changed: choose "
            "another --workdir"
        )

    def refuse_unusable_name(self) -> None:
        """Refuses a path in which checkpoints could be written, but not be read.

        Raises:
          InputError: The path is an address, or has characters of a pattern.
        """
        if ":/" in str(self):
            raise InputError(
                f"--workdir={self}: remote paths are not supported; use a local "
                "directory"
            )
        # Orbax searches for its files with the path as a glob pattern.
        wrong = sorted(set("*?[\\") & set(str(self.path.absolute())))
        if wrong:
            raise InputError(
                f"--workdir={self}: the path {self.path.absolute()} contains "
                f"{' '.join(map(repr, wrong))}, which the storage of checkpoints "
                "cannot use; choose another path"
            )

    @contextlib.contextmanager
    def claim(self, config: Config) -> Iterator[None]:
        """Creates the folder, locks it for this process, and stores the config in it.

        Args:
          config: The resolved config of the run.

        Raises:
          InputError: The folder cannot be written, is in use, or contains a run with
            another config.
        """
        self.refuse_unusable_name()
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                if jax.process_index() == 0:
                    stack.enter_context(lock.hold(self.lock))
                self._bind(config)
            except OSError as error:
                raise InputError(
                    f"--workdir={self} cannot be written: {error.strerror}"
                ) from error
            yield

    def _bind(self, config: Config) -> None:
        now = configs.as_json(config)
        # Without a checkpoint, the config may be replaced by another one.
        if self.is_begun():
            refuse_other(self.stored_config(), now, str(self))
            # The file may have been changed, or belong to another run.
            refuse_other(self.checkpoint_config(), now, str(self))
        parallel.barrier("config read")
        if jax.process_index() == 0:
            written = self.config.with_suffix(".tmp")
            written.write_text(json.dumps(now, indent=2) + "\n")
            # Replace the file atomically, so that nobody reads half of it.
            written.replace(self.config)


def _upgraded(stored: dict[str, Any], where: Path | str) -> dict[str, Any]:
    try:
        return configs.upgrade(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where} is no config that this version can read "
            f"({type(error).__name__}: {error}); train again in another --workdir"
        ) from error


def stored_in(meta: Mapping[str, Any], where: str) -> Config:
    """Returns the config in the meta of a checkpoint, in today's form.

    Args:
      meta: The JSON that was saved with the checkpoint.
      where: The workdir, for error messages.

    Raises:
      InputError: The config cannot be read.
    """
    return configs.load(_upgraded(meta["config"], where))


def refuse_other(stored: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuses to resume a run with another config.

    Args:
      stored: The config of the run, as nested dicts.
      now: The new config, as nested dicts.
      where: The workdir, for error messages.

    Raises:
      InputError: The configs differ in a key outside `MAY_CHANGE`. The text names the
        keys and their values.
    """
    before, after = configs.flat(stored), configs.flat(now)
    differing = [
        f"{key} was {before.get(key, 'absent')!r} and is now "
        f"{after.get(key, 'absent')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in MAY_CHANGE
    ]
    if differing:
        shown = "; ".join(differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{where} contains a run with another config: {shown}{more}\n"
            f"choose another --workdir, or use the config of that run"
        )
