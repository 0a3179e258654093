"""The folder of a run: the name of every file in it, its config, and its owner."""

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
from fpn_jax.workdir import lock

MAY_CHANGE = ("data.root", "data.num_threads", "data.num_workers", "data.on_bad_file")
"""Keys in which a resumed run may differ: no batch of intact files depends on them."""


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
        """Folder of the checkpoints, a folder a step."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Metrics of the training, a JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def lock(self) -> Path:
        """The file that a running training locks."""
        return self.path / "training.lock"

    def damaged_checkpoint(self, step: int) -> Path:
        """Returns where a damaged checkpoint of a step is moved to."""
        return self.path / f"damaged_checkpoint_{step}"

    def report(self, split: str) -> Path:
        """Returns the report on a split; the validation split's is `report.html`."""
        name = "report.html" if split == "validate" else f"report_{split}.html"
        return self.path / name

    def evaluation(self, split: str) -> Path:
        """Returns the metrics of a split, as JSON."""
        return self.path / f"evaluation_{split}.json"

    def mistakes(self, split: str) -> Path:
        """Returns the table of the records of a split that were wrong, as CSV."""
        return self.path / f"mistakes_{split}.csv"

    def is_begun(self) -> bool:
        """Returns whether the run has a checkpoint, which binds it to its config."""
        # Orbax's unfinished ones begin with the step's number as well.
        return any(path.name.isdigit() for path in self.checkpoints.glob("*"))

    def stored_config(self) -> dict[str, Any]:
        """Returns the config of the run, in today's form.

        Raises:
          InputError: There is none, or it cannot be read.
        """
        try:
            stored = json.loads(self.config.read_text())
        except OSError as error:
            raise InputError(
                f"{self} is not a run directory: {self.config.name} cannot be read: "
                f"{error.strerror}"
            ) from error
        except json.JSONDecodeError as error:
            raise InputError(f"{self.config} is not JSON: {error}") from error
        if not isinstance(stored, dict) or not {"model", "backbone"} <= stored.keys():
            raise InputError(
                f"{self} is not a run directory, according to its {self.config.name}; "
                "to use a file of weights, give the file itself"
            )
        return _upgraded(stored, self.config)

    @contextlib.contextmanager
    def claim(self, config: Config) -> Iterator[None]:
        """Creates the folder, stores the config in it, and locks it for this process.

        Raises:
          InputError: It cannot be written, is in use, or has a run of another config.
        """
        if ":/" in str(self):
            raise InputError(
                f"--workdir={self}: remote paths are not supported; use a local "
                "directory"
            )
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
        # Without a checkpoint there is nothing that another config could spoil.
        if self.config.exists() and self.is_begun():
            refuse_other(self.stored_config(), now, str(self))
        parallel.barrier("config read")
        if jax.process_index() == 0:
            written = self.config.with_suffix(".tmp")
            written.write_text(json.dumps(now, indent=2) + "\n")
            # A reader finds the old file or the new one, never half of it.
            written.replace(self.config)


def _upgraded(stored: dict[str, Any], where: Path | str) -> dict[str, Any]:
    try:
        return configs.upgrade(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where} is not the config of a run that this version can open "
            f"({type(error).__name__}: {error}); train again in another workdir"
        ) from error


def stored_in(meta: Mapping[str, Any], where: str) -> Config:
    """Returns the config in a checkpoint's meta, in today's form.

    Args:
      meta: Of a checkpoint.
      where: The workdir, for error messages.

    Raises:
      InputError: It is not the config of a run.
    """
    return configs.load(_upgraded(meta["config"], where))


def refuse_other(stored: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuses to resume a run with another config.

    Args:
      stored: The run's config, nested.
      now: The config that was given.
      where: The workdir, for error messages.

    Raises:
      InputError: The configs differ in a key that matters; names each, with both
        values.
    """
    before, after = configs.flat(stored), configs.flat(now)
    differing = [
        f"{key} is {before.get(key, 'absent')!r} there and "
        f"{after.get(key, 'absent')!r} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in MAY_CHANGE
    ]
    if differing:
        shown = "; ".join(differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{where} has a run of another config: {shown}{more}\n"
            f"take another --workdir, or the config of that run"
        )
