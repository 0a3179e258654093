"""Paths that users give: the home folder, and whether a file can be written."""

import os
import tempfile
from pathlib import Path


def expanded(path: str) -> str:
    """Returns a path in which `~` or `~user` at the beginning is the home folder.

    Args:
      path: The path as the user gave it.
    """
    return os.path.expanduser(path)


def check_writable(path: Path) -> None:
    """Raises an error if a file cannot be written, and leaves nothing behind.

    Args:
      path: A file, which need not exist, in an existing folder.

    Raises:
      OSError: The file or its folder cannot be written.
    """
    if path.exists():
        with path.open("ab"):
            return
    # The name must be possible, too: too long names are refused here.
    os.path.lexists(path)
    with tempfile.TemporaryFile(dir=path.absolute().parent):
        return
