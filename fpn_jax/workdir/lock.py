"""A lock of the operating system, which allows one training per workdir."""

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


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Locks a workdir for this process.

    The operating system releases the lock whenever the process ends, even if it is
    killed, so a lock is never stale. The file remains, with the name of the host and
    the number of the process that had the lock last.

    Args:
      path: The file of the lock, in an existing workdir.

    Raises:
      InputError: Another process has the lock. The text names its host and number.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                # Some mounted buckets and network disks do not support locks.
                print(
                    f"{path.parent} cannot be locked ({error.strerror}): make sure "
                    "that no other training writes there",
                    file=sys.stderr,
                )
            else:
                raise InputError(_held(path.parent, file)) from error
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
        owner = f"process {by['process']} on {by['host']}"
    except (ValueError, KeyError, TypeError):
        # The other process has the lock, but has not written its name yet.
        owner = "another process"
    return (
        f"--workdir={directory} is in use by {owner}; wait for it, stop it, or choose "
        "another folder"
    )
