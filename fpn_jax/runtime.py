"""The process around a run: the environment that XLA reads, and other processes."""

import errno
import importlib.metadata
import importlib.util
import logging as python_logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from fpn_jax.errors import InputError, RunError

# XLA sends single convolutions on a CPU to a library by default, whose weight gradient
# is several times slower than XLA's own; this flag keeps them with XLA.
XLA_FLAGS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"

# glibc (2.35 or newer; older ones ignore it) asks for large pages for mapped memory.
# All threads share two heaps: every save starts threads whose own heaps would remain.
GLIBC_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, or of an exhausted quota."""

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Linux's setting of large pages: `[madvise]` gives them to processes that ask."""


def use_large_pages() -> None:
    """Restarts the process once with large memory pages, where Linux offers them.

    On a CPU, XLA maps a step's memory anew at every step, which in pages of 4 KiB
    causes up to 125,000 page faults: 2 to 25 per cent of the step. The C library asks
    for large pages only if the environment says so when the process starts. A value
    that the user has set is kept.
    """
    if "GLIBC_TUNABLES" in os.environ or _has_accelerator_plugin():
        return
    try:
        ask = "[madvise]" in LARGE_PAGES.read_text()
    except OSError:
        return
    if ask and sys.executable:
        os.environ["GLIBC_TUNABLES"] = GLIBC_TUNABLES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def set_environment() -> None:
    """Sets the environment that JAX reads; call it before JAX is imported."""
    if not _has_accelerator_plugin():
        # The last flag wins, so the user's flags come after ours.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{XLA_FLAGS} {given}".strip()
    # An empty value, which the user may set, is JAX's way to switch the cache off.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := _cache_folder()):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    # With fewer threads, steps of simulated devices wait for each other for ever.
    simulated = int(os.environ.get("JAX_NUM_CPU_DEVICES", "1"))
    if simulated > 1:
        os.environ.setdefault("NPROC", str(max(16, 2 * simulated)))
    _quiet()


def join(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the other processes of a training, before anything asks for a device.

    Args:
      coordinator: `HOST:PORT` of process 0; `"auto"` finds the other processes from a
        TPU pod, SLURM or MPI; None is for a single process.
      num_processes: Number of processes, with a `HOST:PORT`.
      process_id: Number of this process, with a `HOST:PORT`.

    Raises:
      InputError: The other processes were not found.
    """
    if coordinator is None:
        return
    # Imported here, because JAX reads the environment when it is imported.
    import jax

    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the other processes were not found: {str(error).splitlines()[0]}"
        ) from error


def _quiet() -> None:
    """Silences traces of errors that the program reports in a sentence of its own.

    Orbax logs a stack trace where a checkpoint cannot be written or read, and for every
    read or write that was abandoned; on a full disk, tensorboardX's thread and its last
    flush do the same.
    """
    logging.set_verbosity(logging.FATAL)
    # Keep JAX's warnings: they concern the machine.
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    sys.unraisablehook = _unless_reported(sys.unraisablehook)
    threading.excepthook = _unless_reported(threading.excepthook)


def _unless_reported(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Returns a hook for uncaught errors that ignores those of `_quiet`."""

    def unless_reported(uncaught) -> None:
        error = uncaught.exc_value
        closed = str(error) in ("Event loop is closed", "handle is closed")
        # A garbage-collected coroutine raises GeneratorExit.
        closed = closed or isinstance(getattr(error, "__cause__", None), GeneratorExit)
        if not closed and getattr(error, "errno", None) not in FULL:
            hook(uncaught)

    return unless_reported


def _cache_folder() -> str | None:
    """Returns the user's folder for compiled steps; None if it cannot be written."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(root, "fpn_jax", "compiled")
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _has_accelerator_plugin() -> bool:
    # A TPU's library has its own XLA, which ends the process at an unknown flag.
    return bool(
        importlib.util.find_spec("libtpu")
        or importlib.metadata.entry_points(group="jax_plugins")
    )


def guard(work: Callable[[], int], *, several_processes: bool) -> int:
    """Returns the exit code of `work`; a user's mistake becomes a sentence and 2.

    Args:
      work: What to do.
      several_processes: Whether to end at once after a failure. The usual exit of a
        process waits for the others, which wait for the failed one.
    """
    try:
        code = work()
    except InputError as error:
        print(f"fpn_jax: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("fpn_jax: interrupted", file=sys.stderr)
        code = 130
    except RunError as error:
        print(f"fpn_jax: {error}", file=sys.stderr)
        code = 1
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        print(f"fpn_jax: {error.filename}: {error.strerror}", file=sys.stderr)
        code = 2
    except Exception as error:
        code = 1
        if isinstance(error, OSError) and error.errno in FULL:
            print(
                f"fpn_jax: the disk is full ({error}); what was saved is kept: run "
                "the same command again to resume",
                file=sys.stderr,
            )
        elif several_processes:
            traceback.print_exc()
        else:
            raise
    if code and several_processes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
