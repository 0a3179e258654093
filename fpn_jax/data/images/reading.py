"""Reads files and records within a time limit.

A read from a network disk that is gone does not fail: it never returns, and no thread
can cancel it. So a second thread does the reads of each thread, and is abandoned when
a read does not return in time.
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
"""Time limit of a read, in seconds."""

MAX_BYTES = 2**30
"""Limit of a file's size, checked before memory is allocated."""

Call = Callable[[], Any]
"""A function that reads something."""

Answer = tuple[Any, Exception | None]
"""The value that a call returned, or the exception that it raised."""


class _Reader:
    """Makes the calls of one thread, one after the other, in another thread."""

    def __init__(self):
        self._calls, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
        self._queued: collections.deque[str] = collections.deque()
        self._answered: dict[str, Answer] = {}
        # A daemon thread: the process would not end before any other thread.
        threading.Thread(
            target=_serve, args=(self._calls, self._answers), daemon=True
        ).start()
        weakref.finalize(self, _end, self._calls).atexit = False

    def queue(self, calls: Iterable[tuple[str, Call]]) -> None:
        """Queues calls, and forgets answers of earlier ones that nobody fetched."""
        self._answered.clear()
        for name, call in calls:
            self._queued.append(name)
            self._calls.put(call)

    def answer(self, name: str, call: Call, seconds: float) -> Answer:
        """Returns the answer of a call.

        Raises:
          queue.Empty: The call, or one that was queued before it, has not returned in
            time.
        """
        if name not in self._answered and name not in self._queued:
            self._queued.append(name)
            self._calls.put(call)
        while name not in self._answered:
            answer = self._answers.get(timeout=seconds)
            self._answered[self._queued.popleft()] = answer
        return self._answered.pop(name)

    def give_up(self) -> str:
        """Drops all queued calls; returns the name of the one that does not return."""
        _end(self._calls)
        return self._queued[0]


def _serve(calls: queue.SimpleQueue, answers: queue.SimpleQueue) -> None:
    while (call := calls.get()) is not None:
        try:
            answer = call(), None
        except Exception as error:
            answer = None, error
        answers.put(answer)
        # Drop the references while the thread blocks.
        del call, answer


def _end(calls: queue.SimpleQueue) -> None:
    """Ends a reader's thread after its current call."""
    with contextlib.suppress(queue.Empty):
        while True:
            calls.get_nowait()
    calls.put(None)


_reader_of = threading.local()
_stuck: dict[str, _Reader] = {}
"""Name of a call that did not return in time → the reader that still waits for it."""
_stuck_lock = threading.Lock()


def _own_reader() -> _Reader:
    if not hasattr(_reader_of, "this"):
        _reader_of.this = _Reader()
    return _reader_of.this


def prefetch(calls: Iterable[tuple[str, Call]]) -> None:
    """Queues the calls that this thread will `fetch` next, as (name, call)."""
    _own_reader().queue((name, call) for name, call in calls if name not in _stuck)


def fetch(name: str, call: Call) -> Any:
    """Returns the result of a call that may never return, or raises its exception.

    Args:
      name: Unique name of the thing that is read.
      call: Reads it.

    Raises:
      TimeoutError: The call has not returned in time.
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
        # The traceback refers to this frame: break the reference cycle.
        del error, answer


def _in_time(name: str, call: Call) -> Answer | None:
    """Returns the answer of a call; None if some call does not return."""
    reader = _own_reader()
    try:
        return reader.answer(name, call, READ_SECONDS)
    except queue.Empty:
        # This reader may wait for ever; the next call starts a new reader.
        _stuck.setdefault(reader.give_up(), reader)
        del _reader_of.this
        return None


def _late(name: str, call: Call) -> Answer | None:
    """Returns a late answer; None if another thread has just fetched it."""
    with _stuck_lock:
        if name not in _stuck:
            return None
        try:
            answer = _stuck[name].answer(name, call, 0)
        except queue.Empty:
            raise TimeoutError(
                f"it could not be read within {READ_SECONDS:g} s"
            ) from None
        del _stuck[name]
        return answer


def prefetch_files(paths: Iterable[str]) -> None:
    """Starts to read the files that this thread will read next."""
    prefetch((path, partial(_read, path)) for path in paths)


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the bytes of a local file.

    Raises:
      ValueError: The file cannot be read, or not in time.
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
