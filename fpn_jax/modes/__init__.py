"""The modes of the command line, one module per mode.

The module of a mode defines `SUMMARY`, a sentence; `TAKES`, the flags that the mode
takes; `NEEDS`, the flags that it cannot do without; and `run(options)`, which returns
the exit code. These modules import JAX, which reads the environment on import, so they
are loaded by name after the environment is set.
"""

import dataclasses
import importlib
from types import ModuleType

from fpn_jax.command_line import Given

MODES = (
    *("train", "check", "evaluate", "predict", "export", "report", "summary", "list"),
)
"""Names of the modes, which are modules of this package."""

SEVERAL_PROCESSES = ("train", "evaluate")
"""Modes that can run in several processes."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The values of the flags.

    Attributes:
      given: The config file, changed by the command line; None without `--config`.
      workdir: Folder of a run.
      split: `train`, `validate` or `test`.
      data_root: Folder of the data; None for the folder that the run was trained on.
      checkpoint: `best`, `latest`, or the number of a step.
      input: Image files, folders or globs.
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
    """Returns the module of a mode.

    Args:
      name: One of `MODES`.
    """
    return importlib.import_module(f"{__name__}.{name}")
