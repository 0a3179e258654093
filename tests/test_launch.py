"""The launch scripts: their dry runs as text, and real runs of stand-in commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
SNAPSHOTS = ROOT / "tests/launch_snapshots"
STAND_IN = ROOT / "tests/launch_stand_in.py"
SCRIPTS = sorted(path.name for path in LAUNCH.iterdir() if path.is_file())

FLAGS = ["--config=configs/fpn.py", "--workdir=runs/it's a run"]
TPU = {"TPU_NAME": "pyramid", "ZONE": "us-central2-b"}
SLURM = {"CONFIG": "configs/fpn.py", "WORKDIR": "runs/it's a run"}
SLURM_JOB = SLURM | {"SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(ROOT)}

# A shell cannot trap a signal that was ignored at its start, as under nohup or `&`.
FROM_A_TERMINAL = (
    sys.executable,
    "-c",
    "import os, signal, sys\n"
    "for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):\n"
    "    signal.signal(getattr(signal, name), signal.SIG_DFL)\n"
    "os.execvp('bash', ['bash', *sys.argv[1:]])",
)


@pytest.fixture
def stand_ins(tmp_path):
    """An environment whose PATH begins with stand-ins, and which notes their calls."""
    folder = tmp_path / "stand ins"
    folder.mkdir()
    for name in ("gcloud", "git", "python", "scontrol", "srun"):
        (folder / name).write_text(f"#!{sys.executable} -S\n{STAND_IN.read_text()}")
        (folder / name).chmod(0o755)
    home = tmp_path / "home"
    (home / "fpn_jax/.venv/bin").mkdir(parents=True)
    shutil.copy(folder / "python", home / "fpn_jax/.venv/bin/python")
    kept = {key: os.environ[key] for key in ("LANG", "LC_ALL") if key in os.environ}
    return kept | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(tmp_path),
        "CALLS": str(tmp_path / "calls.jsonl"),
    }


def launch(script, *arguments, env):
    return subprocess.run(
        ["bash", LAUNCH / script, *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )


def calls(env):
    """Every call so far: rank, name, arguments, watched variables, process id."""
    path = Path(env["CALLS"])
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def wait_for_calls(env, count):
    deadline = time.monotonic() + 10
    while len(calls(env)) < count:
        assert time.monotonic() < deadline, calls(env)
        time.sleep(0.02)
    return calls(env)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_reads_every_script(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)


@pytest.mark.parametrize(
    ("snapshot", "command", "variables"),
    [
        ("local", ["local.sh", "2", "4", "--", *FLAGS], {}),
        ("local_threads", ["local.sh", "1", "12", "--", *FLAGS], {}),
        ("gpu", ["gpu.sh", *FLAGS], {}),
        ("slurm", ["slurm.sbatch", "--config.seed=1"], SLURM),
        ("tpu_vm_create", ["tpu_vm.sh", "create"], TPU),
        (
            "tpu_vm_create_spot",
            ["tpu_vm.sh", "create"],
            TPU | {"SPOT": "1", "PROJECT": "pets", "TPU_TYPE": "v4-32"},
        ),
        ("tpu_vm_setup", ["tpu_vm.sh", "setup"], TPU),
        ("tpu_vm_run", ["tpu_vm.sh", "run", "--", *FLAGS], TPU),
        ("tpu_vm_status", ["tpu_vm.sh", "status"], TPU),
        ("tpu_vm_logs", ["tpu_vm.sh", "logs"], TPU),
        ("tpu_vm_logs_follow", ["tpu_vm.sh", "logs"], TPU | {"FOLLOW": "1"}),
        ("tpu_vm_stop", ["tpu_vm.sh", "stop"], TPU),
        ("tpu_vm_delete", ["tpu_vm.sh", "delete"], TPU),
    ],
)
def test_dry_run_prints_commands_and_runs_none(snapshot, command, variables, stand_ins):
    ran = launch(*command, env=stand_ins | variables | {"DRY_RUN": "1"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (SNAPSHOTS / f"{snapshot}.txt").read_text()
    assert calls(stand_ins) == []


@pytest.mark.parametrize("script", ["local.sh", "gpu.sh", "tpu_vm.sh"])
def test_usage(script, stand_ins):
    asked = launch(script, "--help", env=stand_ins)
    assert asked.returncode == 0
    assert asked.stdout.startswith(f"launch/{script} ")
    bare = launch(script, env=stand_ins)
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", asked.stdout)


def test_usage_of_slurm(stand_ins):
    asked = launch("slurm.sbatch", "--help", env=stand_ins)
    assert asked.returncode == 0
    assert "sbatch launch/slurm.sbatch" in asked.stdout.replace(
        "[flags of sbatch] ", ""
    )


@pytest.mark.parametrize(
    ("command", "variables", "sentence"),
    [
        (["tpu_vm.sh", "create"], {"ZONE": "z"}, "set the variable TPU_NAME"),
        (["tpu_vm.sh", "stop"], {"TPU_NAME": "n"}, "set the variable ZONE"),
        (["slurm.sbatch"], {"WORKDIR": "runs/x"}, "set the variable CONFIG"),
        (["slurm.sbatch"], {"CONFIG": "configs/fpn.py"}, "set the variable WORKDIR"),
        (["slurm.sbatch"], SLURM, "submit this file with sbatch"),
        (["slurm.sbatch"], SLURM_JOB, "set the variable SLURM_JOB_END_TIME"),
        (
            ["tpu_vm.sh", "destroy"],
            TPU,
            "command 'destroy' is unknown; choose one of create, setup, run, status, "
            "logs, stop, delete",
        ),
        (["tpu_vm.sh", "stop", "now"], TPU, "stop takes no arguments, not 'now'"),
        (
            ["tpu_vm.sh", "run", *FLAGS],
            TPU,
            "give -- and the flags of the run: run -- --config=FILE --workdir=DIR",
        ),
        (
            ["tpu_vm.sh", "delete", "-y"],
            TPU,
            "delete takes --yes or nothing, not '-y'",
        ),
        (
            ["tpu_vm.sh", "delete"],
            TPU,
            "there is no terminal to ask; delete --yes deletes pyramid",
        ),
        (
            ["local.sh", "two", "4", "--", *FLAGS],
            {},
            "PROCESSES is 'two'; give a number, 1 or more",
        ),
        (["local.sh", "2", "0"], {}, "DEVICES is '0'; give a number, 1 or more"),
        (
            ["local.sh", "2", "4", *FLAGS],
            {},
            "give -- and the flags of the run after DEVICES",
        ),
        (
            ["local.sh", "2", "4", "--", *FLAGS],
            {"GRACE_S": "soon"},
            "GRACE_S is 'soon'; give a whole number of seconds",
        ),
        (
            ["gpu.sh", *FLAGS],
            {"ACTS": "fail1"},
            'JAX finds no GPU; install a CUDA build of JAX: pip install -e ".[cuda13]"',
        ),
    ],
)
def test_mistake_is_one_sentence_and_code_2(command, variables, sentence, stand_ins):
    ran = launch(*command, env=stand_ins | variables)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"launch: {sentence}\n")


def test_local_gives_each_process_its_flags_and_devices(stand_ins):
    ran = launch("local.sh", "2", "4", "--", *FLAGS, env=stand_ins)
    assert ran.returncode == 0, ran.stderr
    notes = sorted(calls(stand_ins))
    assert [note[0] for note in notes] == ["0", "1"]
    ports = set()
    for rank, _, arguments, variables, _ in notes:
        assert arguments[:4] == ["-m", "fpn_jax.main", *FLAGS]
        address, *rest = arguments[4:]
        assert rest == ["--num_processes=2", f"--process_id={rank}"]
        host, port = address.removeprefix("--coordinator=").split(":")
        assert host == "127.0.0.1"
        ports.add(int(port))
        assert variables["JAX_PLATFORMS"] == "cpu"
        assert variables["JAX_NUM_CPU_DEVICES"] == "4"
        assert variables["NPROC"] == "16"
    assert len(ports) == 1


def test_local_failure_of_one_ends_the_others(stand_ins):
    env = stand_ins | {"ACTS": "save,fail7,save", "PEERS": "3"}
    ran = launch("local.sh", "3", "1", "--", *FLAGS, env=env)
    assert ran.returncode == 7
    assert "launch: process 1 failed with code 7\n" in ran.stderr
    assert "process_1.log\nthe reason of process 1\n" in ran.stderr
    notes = calls(stand_ins)
    for rank in "02":
        assert [rank, "python", "TERM", {}] in notes
    assert not any(is_running(note[4]) for note in notes if len(note) == 5)


def test_local_kills_what_outlives_the_grace(stand_ins):
    env = stand_ins | {"ACTS": "ignore,fail3", "PEERS": "2", "GRACE_S": "0"}
    ran = launch("local.sh", "2", "1", "--", *FLAGS, env=env)
    assert ran.returncode == 3
    assert not any(is_running(note[4]) for note in calls(env))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_local_forwards_a_signal_as_one_term(sent, stand_ins):
    env = stand_ins | {"ACTS": "save"}
    with subprocess.Popen(
        [*FROM_A_TERMINAL, LAUNCH / "local.sh", "2", "1", "--", *FLAGS],
        env=env,
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    ) as process:
        pids = [note[4] for note in wait_for_calls(env, 2)]
        process.send_signal(sent)
        assert process.wait(timeout=10) == 0
    terms = sorted(note for note in calls(env) if note[2] == "TERM")
    assert terms == [["0", "python", "TERM", {}], ["1", "python", "TERM", {}]]
    assert not any(map(is_running, pids))


def test_local_second_signal_kills(stand_ins):
    env = stand_ins | {"ACTS": "ignore"}
    with subprocess.Popen(
        ["bash", LAUNCH / "local.sh", "2", "1", "--", *FLAGS],
        env=env,
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    ) as process:
        pids = [note[4] for note in wait_for_calls(env, 2)]
        process.terminate()
        time.sleep(0.5)
        assert all(map(is_running, pids))
        process.terminate()
        assert process.wait(timeout=10) == 128 + signal.SIGKILL
    assert not any(map(is_running, pids))


def test_gpu_looks_for_a_gpu_then_becomes_the_training(stand_ins):
    with subprocess.Popen(
        ["bash", LAUNCH / "gpu.sh", *FLAGS], env=stand_ins, cwd=ROOT
    ) as process:
        assert process.wait(timeout=10) == 0
    check, training = calls(stand_ins)
    assert check[2] == ["-c", 'import jax; jax.devices("gpu")']
    assert training[2] == ["-m", "fpn_jax.main", *FLAGS]
    assert training[4] == process.pid


@pytest.mark.parametrize(
    ("seconds_left", "acts", "code", "is_requeued"),
    [(3600, "", 0, False), (100, "", 0, True), (100, "fail5", 5, False)],
)
def test_slurm_requeues_what_its_time_limit_ended(
    seconds_left, acts, code, is_requeued, stand_ins
):
    end = str(int(time.time()) + seconds_left)
    env = stand_ins | SLURM_JOB | {"SLURM_JOB_END_TIME": end, "ACTS": acts}
    ran = launch(
        "slurm.sbatch", "--config.name=a b", env=env | {"SLURM_CPUS_PER_TASK": "6"}
    )
    assert ran.returncode == code, ran.stderr
    step, *after = calls(env)
    assert step[1:3] == [
        "srun",
        [
            *("--kill-on-bad-exit=1", "python", "-m", "fpn_jax.main"),
            *("--distributed", *FLAGS, "--config.name=a b"),
        ],
    ]
    assert step[3]["SRUN_CPUS_PER_TASK"] == "6"
    wanted = [["scontrol", ["requeue", "42"]]] if is_requeued else []
    assert [call[1:3] for call in after] == wanted


def test_slurm_shell_waits_for_the_training_to_save(stand_ins):
    end = str(int(time.time()) + 3600)
    env = stand_ins | SLURM_JOB | {"SLURM_JOB_END_TIME": end, "ACTS": "save"}
    with subprocess.Popen(["bash", LAUNCH / "slurm.sbatch"], env=env) as process:
        (step,) = wait_for_calls(env, 1)
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None
        assert len(calls(env)) == 1, "srun must not be sent TERM"
        os.kill(step[4], signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_tpu_vm_calls_come_in_order(stand_ins):
    env = stand_ins | TPU | {"TPU_NAME": "a pyramid"}
    for command in (["create"], ["delete", "--yes"]):
        assert launch("tpu_vm.sh", *command, env=env).returncode == 0
    create, delete = (call[2] for call in calls(env))
    assert create == [
        *("compute", "tpus", "tpu-vm", "create", "a pyramid"),
        "--zone=us-central2-b",
        "--accelerator-type=v4-8",
        "--version=tpu-ubuntu2204-base",
    ]
    assert delete == [
        *("compute", "tpus", "tpu-vm", "delete", "a pyramid"),
        "--zone=us-central2-b",
        "--quiet",
    ]


def test_tpu_vm_setup_copies_before_it_installs(stand_ins):
    env = stand_ins | TPU
    # The copy is only noted, so the worker has nothing to unpack and the rest is off.
    assert launch("tpu_vm.sh", "setup", env=env).returncode != 0
    made = [call[1:3] for call in calls(env)]
    assert [name for name, _ in made] == ["git", "gcloud", "gcloud"]
    archive = made[0][1][2].removeprefix("--output=")
    assert made[1][1][3:6] == ["scp", archive, "pyramid:fpn_jax.tar.gz"]
    assert not Path(archive).exists()
    assert "tar -xzf fpn_jax.tar.gz" in made[2][1][-1]


def test_tpu_vm_trains_once_and_stops_when_asked(stand_ins):
    env = stand_ins | TPU | {"ACTS": "save"}
    home = Path(env["HOME"])

    idle = launch("tpu_vm.sh", "stop", env=stand_ins | TPU)
    assert idle.returncode == 0
    assert "the training is not running" in idle.stdout

    Path(env["CALLS"]).unlink()
    started = launch("tpu_vm.sh", "run", "--", *FLAGS, "--config.name=$HOME", env=env)
    assert started.returncode == 0, started.stderr
    training = wait_for_calls(env, 3)[2]
    assert training[2] == [
        *("-m", "fpn_jax.main", "--distributed", *FLAGS, "--config.name=$HOME")
    ]
    pid = int((home / "fpn_jax.pid").read_text())
    assert pid == training[4]
    try:
        again = launch("tpu_vm.sh", "run", "--", *FLAGS, env=env)
        assert again.returncode == 1
        assert "the training is already running" in again.stderr
        alive = launch("tpu_vm.sh", "status", env=stand_ins | TPU)
        assert alive.stdout.endswith(": the training is running\n")
        assert launch("tpu_vm.sh", "logs", env=stand_ins | TPU).returncode == 0
    finally:
        stopped = launch("tpu_vm.sh", "stop", env=stand_ins | TPU)
    assert stopped.returncode == 0
    deadline = time.monotonic() + 5
    while ["0", "python", "TERM", {}] not in calls(env):
        assert time.monotonic() < deadline
        time.sleep(0.02)
