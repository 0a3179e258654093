"""What the command line does: one file a mode.

The module of a mode has `SUMMARY`, a sentence; `TAKES`, the flags that it takes;
`NEEDS`, those that it cannot do without; and `run(options)`, which returns the exit
code. Modes import JAX, so their modules are loaded by name, after the environment that
JAX reads is set.
"""

import dataclasses
import importlib
from types import ModuleType

from fpn_jax.command_line import Given

MODES = (
    *("train", "check", "evaluate", "predict", "export", "report", "summary", "list"),
)
"""Names of the modes, each of a module of this package."""

SEVERAL_PROCESSES = ("train", "evaluate")
"""Modes that run in several processes at a time."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The values of the flags.

    Attributes:
      given: The config file with the command line's keys, or None.
      workdir: Folder of a run.
      split: `train`, `validate` or `test`.
      data_root: Folder of other data than the run was trained on.
      checkpoint: `best`, `latest`, or a step.
      input: Files, folders or globs.
      output: File or folder to write.
    """

    given: Given | None = None
    workdir: str | None = None
    split: str = "validate"
    data_root: str | None = None
    checkpoint: str = "best"
    input: tuple[str, ...] = ()
    output: str | None = None


def load(name: str) -> ModuleType:
    """Returns the module of a mode, one of `MODES`."""
    return importlib.import_module(f"{__name__}.{name}")
