"""Worker processes that read data: how they start, and how they end."""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker


@functools.cache
def _start_tracker() -> None:
    """Starts the process that frees the shared memory of batches that nobody took.

    Otherwise it would start with the first worker, and that start lets Ctrl-C through.
    The tracker warns of leaks where it frees such a batch; it inherits the options of
    this process, which silence that warning.
    """
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    resource_tracker.ensure_running()


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Keeps Ctrl-C from processes started here; this process gets it afterwards.

    A terminal sends Ctrl-C to every process at once, but the training loop ends after
    its step and still reads batches until then.
    """
    _start_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker(index: int, count: int) -> None:
    """Prepares a worker process: it ends with its parent, and not before.

    Args:
      index: Number of this worker, as grain passes it.
      count: Number of workers, as grain passes it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed parent notifies nobody, and its workers would wait for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
