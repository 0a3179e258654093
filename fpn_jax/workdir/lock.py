"""One training per workdir: a lock that the operating system releases."""

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

    The system releases the lock when the process ends, however it ends, so a lock is
    never stale. The file remains, with the host and process that held it last.

    Args:
      path: The lock's file, in a workdir that exists.

    Raises:
      InputError: Another process holds the lock; names its host and process number.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                # Some mounted buckets and network disks have no locks.
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
        whom = f"process {by['process']} on {by['host']}"
    except (ValueError, KeyError, TypeError):
        # The other process holds the lock, but has not written its name yet.
        whom = "another process"
    return (
        f"--workdir={directory} is in use by {whom}; wait for it, stop it, or take "
        "another folder"
    )
