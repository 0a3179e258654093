"""Files and records, read within a limit of time.

A network disk that went away does not fail: its reads never return, and no thread can
take them back. So each is left to a thread of its own, which is given up where it does
not answer.
"""

import collections
import contextlib
import os
import queue
import stat
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

READ_SECONDS = 7.0
"""What has not come by then cannot be read."""

MAX_BYTES = 2**30
"""Files larger than this are refused before memory is taken for them."""

Call = Callable[[], Any]
"""Reads something."""

Answer = tuple[Any, Exception | None]
"""What a call returned, or what it raised."""


class _Reader:
    """Calls what reads for one thread, one after the other, in another thread."""

    def __init__(self):
        self._calls, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
        self._asked: collections.deque[str] = collections.deque()
        self._came: dict[str, Answer] = {}
        # A daemon, since the end of the process would wait for any other.
        threading.Thread(
            target=_serve, args=(self._calls, self._answers), daemon=True
        ).start()
        weakref.finalize(self, _end, self._calls).atexit = False

    def ask(self, calls: Iterable[tuple[str, Call]]) -> None:
        """Begins to call; what was asked for before and not answered goes."""
        self._came.clear()
        for name, call in calls:
            self._asked.append(name)
            self._calls.put(call)

    def answer(self, name: str, call: Call, seconds: float) -> Answer:
        """Returns what came of a call.

        Raises:
          queue.Empty: It, or one that was asked for before it, has not come in time.
        """
        if name not in self._came and name not in self._asked:
            self._asked.append(name)
            self._calls.put(call)
        while name not in self._came:
            answer = self._answers.get(timeout=seconds)
            self._came[self._asked.popleft()] = answer
        return self._came.pop(name)

    def give_up(self) -> str:
        """Returns the name of what has not come; only that is still waited for."""
        _end(self._calls)
        return self._asked[0]


def _serve(calls: queue.SimpleQueue, answers: queue.SimpleQueue) -> None:
    while (call := calls.get()) is not None:
        try:
            answer = call(), None
        except Exception as error:
            answer = None, error
        answers.put(answer)
        # They would stay as long as the thread waits.
        del call, answer


def _end(calls: queue.SimpleQueue) -> None:
    """Ends a reader's thread after the call that it is in."""
    with contextlib.suppress(queue.Empty):
        while True:
            calls.get_nowait()
    calls.put(None)


_reader_of = threading.local()
_stuck: dict[str, _Reader] = {}
"""Name → the reader that was given up over it."""
_stuck_lock = threading.Lock()


def _own_reader() -> _Reader:
    if not hasattr(_reader_of, "this"):
        _reader_of.this = _Reader()
    return _reader_of.this


def ask(calls: Iterable[tuple[str, Call]]) -> None:
    """Begins what this thread will `fetch` next, under names of its own."""
    _own_reader().ask((name, call) for name, call in calls if name not in _stuck)


def fetch(name: str, call: Call) -> Any:
    """Returns what a call returns that may never return, or raises what it raises.

    Args:
      name: Of what is read, and of nothing else.
      call: Reads it.

    Raises:
      TimeoutError: It has not come in time.
    """
    answer = None
    while answer is None:
        answer = _late(name, call) if name in _stuck else _in_time(name, call)
    value, error = answer
    if error is None:
        return value
    try:
        raise error
    finally:
        # Its trace leads back here: both would stay until the next collection.
        del error, answer


def _in_time(name: str, call: Call) -> Answer | None:
    """Returns what came of a call; None where something never came."""
    reader = _own_reader()
    try:
        return reader.answer(name, call, READ_SECONDS)
    except queue.Empty:
        # It waits, perhaps for ever; others get a new one.
        _stuck.setdefault(reader.give_up(), reader)
        del _reader_of.this
        return None


def _late(name: str, call: Call) -> Answer | None:
    """Returns what came after all; None where another thread has just fetched it."""
    with _stuck_lock:
        if name not in _stuck:
            return None
        try:
            answer = _stuck[name].answer(name, call, 0)
        except queue.Empty:
            raise TimeoutError(f"it has not come within {READ_SECONDS:g} s") from None
        del _stuck[name]
        return answer


def ask_for_files(paths: Iterable[str]) -> None:
    """Begins to read the files that this thread will ask for next."""
    ask((path, partial(_read, path)) for path in paths)


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the bytes of a local file.

    Raises:
      ValueError: It cannot be read, or has not come in time.
    """
    path = os.fspath(path)
    try:
        return fetch(path, partial(_read, path))
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"the file cannot be read: {reason}") from error


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        # A device such as /dev/zero never ends.
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            raise OSError(0, "it is a device")
        if status.st_size > MAX_BYTES:
            size = status.st_size
            raise OSError(0, f"{size} bytes are more than the limit of {MAX_BYTES}")
        return file.read()
