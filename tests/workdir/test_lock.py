import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from fpn_jax.errors import InputError
from fpn_jax.workdir import lock
from tests.conftest import train

HOLD = """
import pathlib, sys, time
from fpn_jax.workdir import lock
with lock.hold(pathlib.Path(sys.argv[1]) / "training.lock"):
    print("held", flush=True)
    time.sleep(60)
"""

NAME = "training.lock"


def test_the_error_names_the_process_that_has_the_lock(tmp_path):
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    with (
        lock.hold(tmp_path / NAME),
        pytest.raises(InputError, match=f"is in use by {owner}"),
        lock.hold(tmp_path / NAME),
    ):
        pass
    with lock.hold(tmp_path / NAME):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_releases_the_lock(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=f"process {process.pid} on"),
        lock.hold(tmp_path / NAME),
    ):
        pass
    process.send_signal(number)
    process.communicate()
    with lock.hold(tmp_path / NAME):
        pass


def test_the_lock_works_before_the_owner_wrote_its_name(tmp_path):
    with lock.hold(tmp_path / NAME):
        (tmp_path / NAME).write_text("")
        with (
            pytest.raises(InputError, match="in use by another process"),
            lock.hold(tmp_path / NAME),
        ):
            pass


def test_a_disk_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with lock.hold(tmp_path / NAME):
        assert "cannot be locked (Operation not supported)" in capsys.readouterr().err


def test_a_second_training_in_a_workdir_is_refused(tmp_path):
    with (
        lock.hold(tmp_path / NAME),
        pytest.raises(InputError, match=r"--workdir=.* is in use by process"),
    ):
        train(tmp_path)
    assert not (tmp_path / "config.json").exists()
