"""The process: its environment variables, exit codes, and the other processes."""

import errno
import importlib.metadata
import importlib.util
import logging as python_logging
import mmap
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from fpn_jax.errors import InputError, RunError

# On a CPU, XLA computes single convolutions with a library by default. The weight
# gradient of that library is several times slower than XLA's own, which this flag uses.
XLA_FLAGS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"

# hugetlb: glibc (2.35 or newer) asks for large pages for mapped memory. arena_max: all
# threads share two heaps, because every save starts threads, whose heaps would remain.
GLIBC_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk or an exhausted quota."""

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Linux's setting of large pages; `[madvise]` gives them to processes that ask."""


def use_large_pages() -> None:
    """Restarts the process once with large memory pages, if Linux offers them.

    On a CPU, XLA maps the memory of a step anew at every step. With pages of 4 KiB this
    causes up to 125,000 page faults, which take 2 to 25 per cent of the step. The C
    library asks for large pages only if `GLIBC_TUNABLES` says so when the process
    starts. A value that the user has set is kept.
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


def known_flags(flags: str) -> str:
    """Returns those of XLA's flags that the installed jaxlib has.

    XLA ends the process, without a Python error, at a flag that it does not know, and
    flags come and go with its versions. The library contains the name of each of its
    flags as a C string.

    Args:
      flags: Flags as in `XLA_FLAGS`, separated by spaces.
    """
    spec = importlib.util.find_spec("jaxlib")
    folders = spec.submodule_search_locations if spec else ()
    libraries = [lib for folder in folders for lib in Path(folder).glob("libjax*")]
    names = {flag: flag.removeprefix("--").partition("=")[0] for flag in flags.split()}
    known = set()
    for library in libraries:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            known |= {n for n in names.values() if data.find(f"\0{n}\0".encode()) >= 0}
    return " ".join(flag for flag, name in names.items() if name in known)


def set_environment() -> None:
    """Sets the environment that JAX reads; call it before JAX is imported."""
    if not _has_accelerator_plugin():
        # The last flag wins, so the user's flags come after ours.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{known_flags(XLA_FLAGS)} {given}".strip()
    # An empty value switches JAX's cache off, so a value of the user is kept.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := _cache_folder()):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    # With fewer threads, the steps of simulated devices deadlock.
    simulated = int(os.environ.get("JAX_NUM_CPU_DEVICES", "1"))
    if simulated > 1:
        os.environ.setdefault("NPROC", str(max(16, 2 * simulated)))
    _quiet()


def join(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects to the other processes of a run; call it before a device is used.

    Args:
      coordinator: `HOST:PORT` of process 0; `"auto"` gets the other processes from a
        TPU pod, SLURM or MPI; None means a single process.
      num_processes: Number of processes; only with `HOST:PORT`.
      process_id: Number of this process; only with `HOST:PORT`.

    Raises:
      InputError: The other processes cannot be found.
    """
    if coordinator is None:
        return
    # Import JAX late, because it reads the environment when it is imported.
    import jax

    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            "the other processes cannot be found; check --coordinator, or start from "
            f"a TPU pod, SLURM or MPI: {str(error).splitlines()[0]}"
        ) from error


def _quiet() -> None:
    """Silences stack traces of errors that the program reports in one sentence.

    Orbax logs a stack trace when a checkpoint cannot be written or read, and for every
    read or write that was cancelled. On a full disk, tensorboardX does the same in its
    thread and at its last flush.
    """
    logging.set_verbosity(logging.FATAL)
    # Keep JAX's warnings: they concern the machine.
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    sys.unraisablehook = _unless_reported(sys.unraisablehook)
    threading.excepthook = _unless_reported(threading.excepthook)


def _unless_reported(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Returns a hook for uncaught errors that ignores those named in `_quiet`."""

    def unless_reported(uncaught) -> None:
        error = uncaught.exc_value
        closed = str(error) in ("Event loop is closed", "handle is closed")
        # A garbage-collected coroutine raises GeneratorExit.
        closed = closed or isinstance(getattr(error, "__cause__", None), GeneratorExit)
        if not closed and getattr(error, "errno", None) not in FULL:
            hook(uncaught)

    return unless_reported


def _cache_folder() -> str | None:
    """Returns the cache folder for compiled steps; None if it cannot be written."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(root, "fpn_jax", "compiled")
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _has_accelerator_plugin() -> bool:
    # The XLA of a TPU's library ends the process at a flag that it does not know.
    return bool(
        importlib.util.find_spec("libtpu")
        or importlib.metadata.entry_points(group="jax_plugins")
    )


def _report(error: OSError) -> int:
    """Prints an error of the operating system, and returns the exit code."""
    if error.errno in FULL:
        print(
            f"fpn_jax: the disk is full ({error}); the saved checkpoints are "
            "kept: free space and run the same command again to resume",
            file=sys.stderr,
        )
        return 1
    # Some errors have no file, and those of some libraries have only a text.
    where = f"{error.filename}: " if error.filename is not None else ""
    print(f"fpn_jax: {where}{error.strerror or error}", file=sys.stderr)
    return 2


def guard(work: Callable[[], int], *, several_processes: bool) -> int:
    """Calls a function; prints its errors as sentences and returns the exit code.

    Args:
      work: A function that returns an exit code.
      several_processes: Whether other processes take part. If so, a failure ends this
        process at once: a normal exit would wait for the others, which wait for it.

    Returns:
      The exit code of `work`; 1 after a failure, 2 after a mistake of the user, 130
      after Ctrl-C.

    Raises:
      Exception: `work` failed in a single process for a reason that no sentence
        explains.
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
    except BrokenPipeError:
        # The reader of the output, such as `head`, has ended. Python would complain
        # when it flushes the output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        code = _report(error)
    except Exception:
        code = 1
        if several_processes:
            traceback.print_exc()
        else:
            raise
    if code and several_processes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
