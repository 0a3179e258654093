"""Replaces every command of the launch scripts: logs the call, then acts by name."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python" and arguments[0] == "-c" and "socket" in arguments[1]:
    os.execv(sys.executable, [sys.executable, *arguments])
rank = next((a[-1] for a in arguments if a.startswith("--process_id=")), "0")
watched = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "NPROC", "SRUN_CPUS_PER_TASK")
note = [rank, name, arguments, {key: os.environ.get(key) for key in watched}]
calls = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def write(value):
    os.write(calls, (json.dumps(value) + "\n").encode())


def save_and_leave(*_):
    write([rank, name, "TERM", {}])
    sys.exit(0)


acts = os.environ.get("ACTS", "").split(",")
act = acts[min(int(rank), len(acts) - 1)]
if act in ("save", "ignore"):
    signal.signal(signal.SIGTERM, save_and_leave if act == "save" else signal.SIG_IGN)
write([*note, os.getpid()])
if name == "gcloud" and "ssh" in arguments:
    command = next(a for a in arguments if a.startswith("--command="))
    sys.exit(
        subprocess.call(
            ["sh", "-c", command[len("--command=") :]], cwd=os.environ["HOME"]
        )
    )
if act.startswith("fail"):
    while len(pathlib.Path(os.environ["CALLS"]).read_text().splitlines()) < int(
        os.environ.get("PEERS", 1)
    ):
        time.sleep(0.02)
    print("the reason of process", rank, file=sys.stderr)
    sys.exit(int(act[len("fail") :]))
if act:
    time.sleep(30)
