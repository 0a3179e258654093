import errno
import os
import subprocess
import sys
import types

import pytest

from fpn_jax import runtime
from fpn_jax.errors import InputError


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("x is 1; choose 2"), 2, "fpn_jax: x is 1; choose 2\n"),
        (KeyboardInterrupt(), 130, "fpn_jax: interrupted\n"),
        (PermissionError(13, "Permission denied", "a.csv"), 2, "a.csv: Permission"),
        (OSError(errno.EROFS, "Read-only file system", "a"), 2, "a: Read-only file"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "b"), 2, "b: File name"),
        (OSError("cannot write mode F"), 2, "fpn_jax: cannot write mode F"),
        (OSError(errno.ENOSPC, "No space left", "c"), 1, "the disk is full"),
    ],
)
def test_a_mistake_of_the_user_gives_a_sentence_and_an_exit_code(
    error, code, says, capsys
):
    assert runtime.guard(lambda: fail(error), several_processes=False) == code
    assert says in capsys.readouterr().err


def test_an_unexpected_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        runtime.guard(lambda: 1 // 0, several_processes=False)


def test_a_failed_process_does_not_wait_for_the_others():
    code = (
        "import threading, time; from fpn_jax import runtime;"
        # This thread keeps the interpreter alive, as JAX's shutdown barrier does.
        "threading.Thread(target=time.sleep, args=(60,)).start();"
        "runtime.guard(lambda: 1 // 0, several_processes=True)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
    )
    assert ran.returncode == 1
    assert "ZeroDivisionError" in ran.stderr


def cache_after_start(monkeypatch):
    monkeypatch.setattr(runtime, "_has_accelerator_plugin", lambda: True)
    runtime.set_environment()
    return os.environ.get("JAX_COMPILATION_CACHE_DIR")


def test_compiled_steps_are_cached_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    assert cache_after_start(monkeypatch) == str(tmp_path / "fpn_jax" / "compiled")
    assert (tmp_path / "fpn_jax" / "compiled").is_dir()


@pytest.mark.parametrize("chosen", ["", "elsewhere"])
def test_the_cache_folder_of_the_user_is_kept(monkeypatch, chosen):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", chosen)
    assert cache_after_start(monkeypatch) == chosen


def test_an_unwritable_cache_folder_switches_the_cache_off(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    assert cache_after_start(monkeypatch) is None


@pytest.mark.parametrize("plugin", [False, True])
def test_the_users_xla_flags_come_last(monkeypatch, plugin):
    monkeypatch.setattr(runtime, "_has_accelerator_plugin", lambda: plugin)
    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "12")
    monkeypatch.delenv("NPROC", raising=False)
    runtime.set_environment()
    ours = runtime.known_flags(runtime.XLA_FLAGS)
    expected = "--xla_mine=1" if plugin else f"{ours} --xla_mine=1".strip()
    assert os.environ["XLA_FLAGS"] == expected
    assert os.environ["NPROC"] == "24"


@pytest.mark.parametrize(
    ("offered", "users", "plugin", "anew"),
    [
        ("always [madvise] never", None, False, True),
        ("[always] madvise never", None, False, False),
        ("always madvise [never]", None, False, False),
        (None, None, False, False),
        ("always [madvise] never", "glibc.malloc.check=0", False, False),
        ("always [madvise] never", None, True, False),
    ],
)
def test_the_process_restarts_once_for_large_pages(
    offered, users, plugin, anew, monkeypatch, tmp_path
):
    if offered:
        (tmp_path / "enabled").write_text(offered)
    monkeypatch.setattr(runtime, "LARGE_PAGES", tmp_path / "enabled")
    monkeypatch.setattr(runtime, "_has_accelerator_plugin", lambda: plugin)
    # Set the variable first, so that monkeypatch removes it after the test.
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.delenv("GLIBC_TUNABLES")
    if users:
        monkeypatch.setenv("GLIBC_TUNABLES", users)
    calls = []
    monkeypatch.setattr(os, "execv", lambda *call: calls.append(call))
    runtime.use_large_pages()
    # The restarted process calls the function again.
    runtime.use_large_pages()
    assert len(calls) == anew
    if anew:
        assert os.environ["GLIBC_TUNABLES"] == runtime.GLIBC_TUNABLES
    else:
        assert os.environ.get("GLIBC_TUNABLES") == users


def test_a_restarted_process_runs_the_same_command(tmp_path):
    enabled = tmp_path / "enabled"
    enabled.write_text("always [madvise] never")
    code = (
        "import os, pathlib, sys; from fpn_jax import runtime\n"
        f"runtime.LARGE_PAGES = pathlib.Path({str(enabled)!r})\n"
        "runtime._has_accelerator_plugin = lambda: False\n"
        "runtime.use_large_pages()\n"
        "print(os.getpid(), sys.argv[1:], os.environ['GLIBC_TUNABLES'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    ran = subprocess.Popen(
        [sys.executable, "-c", code, "a b", "--c"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    out, _ = ran.communicate(timeout=60)
    # The process number does not change, so signals still reach the process.
    assert out == f"{ran.pid} ['a b', '--c'] {runtime.GLIBC_TUNABLES}\n"


def test_requested_jax_logs_are_shown():
    code = (
        "from fpn_jax import runtime; runtime.set_environment();"
        "import jax; jax.jit(lambda x: x + 1)(1.0)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_LOG_COMPILES": "1", "JAX_PLATFORMS": "cpu"},
    )
    assert "Finished XLA compilation" in ran.stderr


def test_cancelled_reads_are_silent_but_other_errors_are_not():
    told = []
    hook = runtime._unless_reported(lambda uncaught: told.append(uncaught.exc_value))
    collected = Exception("Encountered error while reading array index: ()")
    collected.__cause__ = GeneratorExit()
    mistake = KeyError("x")
    for error in (
        collected,
        RuntimeError("Event loop is closed"),
        OSError(errno.ENOSPC, "No space left on device"),
        mistake,
    ):
        hook(types.SimpleNamespace(exc_value=error))
    assert told == [mistake]


def test_a_reader_that_ends_early_ends_the_output_quietly():
    """As in `… | head -1`."""
    code = (
        "import sys; from fpn_jax import runtime\n"
        "def work():\n"
        "    for _ in range(100000): print('a' * 100)\n"
        "sys.exit(runtime.guard(work, several_processes=False))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_flags_that_the_library_lacks_are_left_out():
    flags = "--xla_no_such_flag=1 --xla_backend_optimization_level=0 --xla_nor_this=2"
    assert runtime.known_flags(flags) == "--xla_backend_optimization_level=0"
    assert runtime.known_flags("") == ""


def test_xla_takes_the_flags_that_we_set():
    """A flag that XLA does not know ends the process."""
    flags = runtime.known_flags(runtime.XLA_FLAGS)
    ran = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
