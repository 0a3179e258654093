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
    try:
        # `Path.exists` would hide the error of a name that is too long.
        path.stat()
    except FileNotFoundError:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            return
    with path.open("ab"):
        return
