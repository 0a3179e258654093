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

# XLA's default sends single convolutions on a CPU to a library whose weight gradient is
# several times slower than the one it replaces.
XLA_FLAGS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"

# Memory that is mapped is offered large pages (glibc 2.35; older ones overlook it), and
# threads share two heaps: every save brings new threads, whose own heaps would stay.
GLIBC_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a disk, or of a share of it, that is full."""

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Where Linux says who gets large pages: `[madvise]` means those who ask."""


def use_large_pages() -> None:
    """Starts the process anew, once, where a CPU's memory would come in small pages.

    On a CPU, XLA maps what a step needs anew each time, which in pages of 4 KiB are up
    to 125,000 faults: 2 to 25 per cent of the step. The C library asks for large ones
    only if the environment says so as the process starts. What the user tuned stands.
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


def start(coordinator: str | None, num_processes: int | None, process_id: int | None):
    """Sets up the environment, before anything asks JAX for a device.

    Args:
      coordinator: `HOST:PORT` of process 0; `"auto"` finds the other processes from a
        TPU pod, SLURM or MPI; None is for a single process.
      num_processes: How many processes there are, with a `HOST:PORT`.
      process_id: Which one this is, with a `HOST:PORT`.
    """
    if not _has_accelerator_plugin():
        # The user's flags come last and win.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{XLA_FLAGS} {given}".strip()
    # Empty is JAX's own way to say: none.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := _cache_folder()):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    # With fewer threads, steps of simulated devices wait for each other for ever.
    simulated = int(os.environ.get("JAX_NUM_CPU_DEVICES", "1"))
    if simulated > 1:
        os.environ.setdefault("NPROC", str(max(16, 2 * simulated)))
    _quiet()
    if coordinator is None:
        return
    # Only now: JAX reads the environment when it is imported.
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
    """Leaves what goes wrong to the sentence that tells of it.

    Where a checkpoint is not written or read whole, Orbax logs a stack trace besides,
    and so does every read or write that nobody waits for any more; on a full disk,
    tensorboardX's thread and its last flush do.
    """
    logging.set_verbosity(logging.FATAL)
    # Its warnings are about the machine, and what it logs was asked for.
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    sys.unraisablehook = _unless_told(sys.unraisablehook)
    threading.excepthook = _unless_told(threading.excepthook)


def _unless_told(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Returns a hook for errors that nobody catches, without those of `_quiet`."""

    def unless_told(uncaught) -> None:
        error = uncaught.exc_value
        closed = str(error) in ("Event loop is closed", "handle is closed")
        # How a coroutine ends that is collected.
        closed = closed or isinstance(getattr(error, "__cause__", None), GeneratorExit)
        if not closed and getattr(error, "errno", None) not in FULL:
            hook(uncaught)

    return unless_told


def _cache_folder() -> str | None:
    """Returns the user's folder for compiled steps; None where none can be made."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(root, "fpn_jax", "compiled")
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _has_accelerator_plugin() -> bool:
    # A TPU's library has its own XLA, which ends the process at a flag it lacks.
    return bool(
        importlib.util.find_spec("libtpu")
        or importlib.metadata.entry_points(group="jax_plugins")
    )


def guard(work: Callable[[], int], *, several_processes: bool) -> int:
    """Returns the exit code of `work`; a user's mistake becomes a sentence and 2.

    Args:
      work: What to do.
      several_processes: The usual way out of a failed process would wait for the
        others, which wait for it; so such a process ends at once.
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
                f"fpn_jax: nothing more can be written ({error}); what was saved "
                "stays, and the same command goes on from there",
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
