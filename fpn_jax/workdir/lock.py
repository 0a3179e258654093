"""One training a workdir: a lock that the operating system lets go of."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from fpn_jax.errors import InputError

NAME = "training.lock"
"""Name of the file; it stays behind, with what held it last, and locks nothing then."""


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Holds a workdir for this process.

    The system lets go of the lock when the process ends, however it ends, so none is
    ever stale.

    Args:
      directory: A folder that exists.

    Raises:
      InputError: Another process holds it; names its host and number.
    """
    with (directory / NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                # Some mounted buckets and network disks know no locks.
                print(
                    f"{directory} cannot be locked ({error.strerror}): see to it that "
                    "no other training writes there",
                    file=sys.stderr,
                )
            else:
                raise InputError(_held(directory, file)) from error
        else:
            file.seek(0)
            file.truncate()
            json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
            file.flush()
        yield


def _held(directory: Path, file) -> str:
    file.seek(0)
    try:
        by = json.load(file)
        whom = f"process {by['process']} on {by['host']}"
    except (ValueError, KeyError, TypeError):
        # It holds the lock, but has not written its name yet.
        whom = "another process"
    return (
        f"--workdir={directory} is in use by {whom}; wait for it, stop it, or take "
        "another folder"
    )
