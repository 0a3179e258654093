import contextlib
import errno
import os
import threading
import time

import pytest

from fpn_jax.data.images import reading


def test_the_bytes_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert reading.read_file(tmp_path / "x") == b"abc"


def test_many_threads_read_their_own_files(tmp_path):
    for number in range(40):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 5000)
    wrong = []

    def read(first):
        for number in range(first, 40, 8):
            if reading.read_file(tmp_path / str(number)) != bytes([number]) * 5000:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_reasons(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        reading.read_file(tmp_path / "absent")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        reading.read_file(tmp_path)
    with pytest.raises(ValueError, match="it is a device"):
        reading.read_file("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="Too many levels of symbolic links"):
        reading.read_file(tmp_path / "loop")
    monkeypatch.setattr(reading, "MAX_BYTES", 3)
    (tmp_path / "large").write_bytes(b"1234")
    with pytest.raises(ValueError, match="4 bytes are more than the limit of 3"):
        reading.read_file(tmp_path / "large")


@pytest.fixture
def as_nobody():
    """Root may read everything; whoever else runs this may not."""
    if os.getuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_without_permission(tmp_path, as_nobody):
    with pytest.raises(ValueError, match="cannot be read: Permission denied"):
        reading.read_file("/proc/1/environ" if os.getuid() == 0 else _secret(tmp_path))


def _secret(folder):
    (folder / "secret").write_bytes(b"")
    (folder / "secret").chmod(0)
    return folder / "secret"


def test_a_pipe_that_nobody_writes_to_is_given_up_and_may_still_come(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "READ_SECONDS", 0.2)
    pipe, other = tmp_path / "pipe", tmp_path / "other"
    os.mkfifo(pipe)
    other.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"could not be read within 0\.2 s"):
        reading.read_file(pipe)
    assert reading.read_file(other) == b"other"
    threads = threading.active_count()
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(ValueError, match="could not be read within"):
            reading.read_file(pipe)
    # Neither waited for again, nor with more threads.
    assert time.monotonic() - began < 0.2
    assert threading.active_count() == threads
    pipe.write_bytes(b"late")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert reading.read_file(pipe) == b"late"
            break
        except ValueError:
            time.sleep(0.01)
    else:
        raise AssertionError("it never came")
    pipe.unlink()
    pipe.write_bytes(b"a file now")
    assert reading.read_file(pipe) == b"a file now"


def fetch_at_last(name, call):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            return reading.fetch(name, call)
    raise AssertionError("it never came")


def test_an_error_that_comes_late_is_told_of_once(monkeypatch):
    monkeypatch.setattr(reading, "READ_SECONDS", 0.2)
    disk, calls = threading.Event(), []

    def read():
        calls.append(len(calls))
        disk.wait()
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return "whole"

    with pytest.raises(TimeoutError):
        reading.fetch("late error", read)
    disk.set()
    with pytest.raises(OSError, match="Input/output"):
        fetch_at_last("late error", read)
    assert reading.fetch("late error", read) == "whole"
    assert calls == [0, 1]


def test_what_was_given_up_reads_nothing_more(monkeypatch):
    monkeypatch.setattr(reading, "READ_SECONDS", 0.2)
    disk, read = threading.Event(), []
    reading.prefetch([("hangs", disk.wait), ("behind", lambda: read.append("behind"))])
    with pytest.raises(TimeoutError):
        reading.fetch("hangs", disk.wait)
    disk.set()
    assert fetch_at_last("hangs", disk.wait)
    assert reading.fetch("after", lambda: "read") == "read"
    assert not read


def test_files_that_were_asked_for_ahead_come_in_any_order(tmp_path):
    paths = [str(tmp_path / str(number)) for number in range(6)]
    for path in paths[:5]:
        with open(path, "w") as file:
            file.write(path)
    reading.prefetch_files(paths)
    # Some are never fetched, one is absent, one was not asked for.
    (tmp_path / "other").write_bytes(b"other")
    for path in (paths[3], paths[1], str(tmp_path / "other"), paths[4]):
        expected = b"other" if path.endswith("other") else path.encode()
        assert reading.read_file(path) == expected
    with pytest.raises(ValueError, match="No such file"):
        reading.read_file(paths[5])
    reading.prefetch_files([paths[0], paths[0]])
    assert reading.read_file(paths[0]) == paths[0].encode()
    assert reading.read_file(paths[2]) == paths[2].encode()


def test_what_stands_behind_a_file_that_hangs_comes_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "READ_SECONDS", 0.2)
    pipe, others = str(tmp_path / "pipe"), [str(tmp_path / name) for name in "ab"]
    os.mkfifo(pipe)
    for path in others:
        with open(path, "w") as file:
            file.write(path)
    reading.prefetch_files([others[0], pipe, others[1]])
    assert reading.read_file(others[1]) == others[1].encode()
    with pytest.raises(ValueError, match="could not be read within"):
        reading.read_file(pipe)
    assert reading.read_file(others[0]) == others[0].encode()
