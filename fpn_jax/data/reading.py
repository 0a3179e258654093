"""Files, read within a limit of time.

A network disk that went away does not fail: its reads never return, and no thread can
take them back. So each is left to a thread of its own, which is given up where it does
not answer.
"""

import collections
import os
import queue
import stat
import threading
import weakref
from collections.abc import Iterable

READ_SECONDS = 7.0
"""A file that has not come by then cannot be read."""

MAX_BYTES = 2**30
"""Files larger than this are refused before memory is taken for them."""


class _Reader:
    """Reads files for one thread, one after the other, in another thread."""

    def __init__(self):
        self._paths, self._contents = queue.SimpleQueue(), queue.SimpleQueue()
        self._asked: collections.deque[str] = collections.deque()
        self._read: dict[str, bytes | OSError] = {}
        # A daemon, since the end of the process would wait for any other.
        threading.Thread(
            target=_serve, args=(self._paths, self._contents), daemon=True
        ).start()
        weakref.finalize(self, self._paths.put, None).atexit = False

    def ask(self, paths: Iterable[str]) -> None:
        """Begins to read files; what was asked for before and not fetched goes."""
        self._read.clear()
        for path in paths:
            self._asked.append(path)
            self._paths.put(path)

    def fetch(self, path: str, seconds: float) -> bytes | OSError:
        """Returns what a file holds, or why it cannot be read.

        Raises:
          queue.Empty: It, or one that was asked for before it, has not come in time.
        """
        if path not in self._read and path not in self._asked:
            self._asked.append(path)
            self._paths.put(path)
        while path not in self._read:
            content = self._contents.get(timeout=seconds)
            self._read[self._asked.popleft()] = content
        return self._read.pop(path)

    def stuck_at(self) -> str:
        """Returns the file that has not come."""
        return self._asked[0]


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
_stuck_lock = threading.Lock()


def _own_reader() -> _Reader:
    if not hasattr(_reader_of, "this"):
        _reader_of.this = _Reader()
    return _reader_of.this


def read_ahead(paths: Iterable[str]) -> None:
    """Begins to read the files that this thread will ask for next."""
    _own_reader().ask(path for path in paths if path not in _stuck)


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the bytes of a local file.

    Raises:
      ValueError: It cannot be read, or has not come in time.
    """
    path = os.fspath(path)
    while path not in _stuck:
        reader = _own_reader()
        try:
            return _content(reader.fetch(path, READ_SECONDS))
        except queue.Empty:
            # It waits, perhaps for ever; other files get a new one.
            _stuck.setdefault(reader.stuck_at(), reader)
            del _reader_of.this
    with _stuck_lock:
        try:
            content = _stuck[path].fetch(path, 0)
        # Gone where another thread has just fetched it.
        except (queue.Empty, KeyError):
            raise ValueError(
                f"the file cannot be read: it has not come within {READ_SECONDS:g} s"
            ) from None
        del _stuck[path]
    return _content(content)


def _content(content: bytes | OSError) -> bytes:
    if isinstance(content, OSError):
        raise ValueError(f"the file cannot be read: {content.strerror}") from content
    return content
