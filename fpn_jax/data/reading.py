"""Files, read within a limit of time.

A network disk that went away does not fail: its reads never return, and no thread can
take them back. So each is left to a thread of its own, which is given up where it does
not answer.
"""

import os
import queue
import stat
import threading
import weakref

READ_SECONDS = 7.0
"""A file that has not come by then cannot be read."""

MAX_BYTES = 2**30
"""Files larger than this are refused before memory is taken for them."""


class _Reader:
    """Reads files for one thread, one after the other, in another thread."""

    def __init__(self):
        self._paths, self._contents = queue.SimpleQueue(), queue.SimpleQueue()
        # A daemon, since the end of the process would wait for any other.
        threading.Thread(
            target=_serve, args=(self._paths, self._contents), daemon=True
        ).start()
        weakref.finalize(self, self._paths.put, None).atexit = False

    def ask(self, path: str) -> None:
        """Begins to read a file."""
        self._paths.put(path)

    def answer(self, seconds: float) -> bytes | OSError:
        """Returns what the file holds, or why it cannot be read.

        Raises:
          queue.Empty: It has not come in time.
        """
        return self._contents.get(timeout=seconds)


def _serve(paths: queue.SimpleQueue, contents: queue.SimpleQueue) -> None:
    while (path := paths.get()) is not None:
        contents.put(_read(path))


def _read(path: str | os.PathLike) -> bytes | OSError:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            # A device such as /dev/zero never ends.
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                return OSError(0, "it is a device")
            if status.st_size > MAX_BYTES:
                return OSError(
                    0, f"{status.st_size} bytes are more than the limit of {MAX_BYTES}"
                )
            return file.read()
    except OSError as error:
        return error


_reader_of = threading.local()
_stuck: dict[str, _Reader] = {}
"""Path → the reader that was given up over it."""


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the bytes of a local file.

    Raises:
      ValueError: It cannot be read, or has not come in time.
    """
    path = os.fspath(path)
    reader, seconds = _stuck.get(path), 0.0
    if reader is None:
        if not hasattr(_reader_of, "this"):
            _reader_of.this = _Reader()
        reader, seconds = _reader_of.this, READ_SECONDS
        reader.ask(path)
    try:
        content = reader.answer(seconds)
    except queue.Empty:
        if reader is getattr(_reader_of, "this", None):
            # It waits, perhaps for ever; the next file gets a new one.
            _stuck.setdefault(path, reader)
            del _reader_of.this
        raise ValueError(
            f"the file cannot be read: it has not come within {READ_SECONDS:g} s"
        ) from None
    _stuck.pop(path, None)
    if isinstance(content, OSError):
        raise ValueError(f"the file cannot be read: {content.strerror}") from content
    return content
