"""A long run of a small model: memory, step time and disk usage must not grow."""

import pathlib
import time

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome
from fpn_jax.workdir.folder import Workdir

MAX_MIB_PER_1000_STEPS = 1.0
"""Limit of the growth of memory."""

MAX_SLOWER = 0.1
"""Limit of the relative growth of the step time, from the second fifth to the last."""


def flat(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, steps: int
) -> Outcome:
    """Trains for `steps` steps, and observes the process from outside.

    The first fifth is not counted, because caches fill and the heap grows to its size.

    Args:
      bench: Not used.
      scratch: An empty folder.
      rng: Not used.
      steps: Length of the run.
    """
    run = runs.start(
        scratch / "long",
        steps,
        # Twenty evaluations and checkpoints, whatever the length.
        f"--config.train.evaluate_every_steps={max(steps // 20, 1)}",
        JAX_LOG_COMPILES="1",
    )
    rows, seen = [], 0
    while run.process.poll() is None:
        done = run.rows()
        if done >= seen + max(steps // 100, 1):
            seen = done
            compiled = run.output().count("] Finished XLA compilation of")
            resident = _resident_mib(run.process.pid)
            rows.append((done, resident, time.monotonic(), compiled))
        time.sleep(0.02)
    output = run.output()
    # The report, which is made after the last step, compiles programs of its own.
    later = np.array([row for row in rows if steps // 5 < row[0] < steps and row[1]])
    if run.process.returncode or len(later) < 2:
        return Outcome(False, f"exit code {run.process.returncode}: {output[-400:]}")
    slope = 1000 * float(np.polyfit(later[:, 0], later[:, 1], 1)[0])
    seconds = np.diff(later[:, 2]) / np.diff(later[:, 0])
    fifth = max(len(seconds) // 4, 1)
    slower = float(np.median(seconds[-fifth:]) / np.median(seconds[:fifth])) - 1
    compiled = int(later[-1, 3] - later[0, 3])
    disk = sum(p.stat().st_size for p in run.workdir.rglob("*") if p.is_file()) / 2**20
    kept = len(list(Workdir(run.workdir).checkpoints.glob("[0-9]*")))
    passed = (
        slope < MAX_MIB_PER_1000_STEPS
        and slower < MAX_SLOWER
        and compiled == 0 < later[0, 3]
        and kept <= 3
    )
    return Outcome(
        passed,
        f"{steps} steps: {slope:+.2f} MiB per 1,000 steps, step time {slower:+.1%}, "
        f"{compiled} compilations, {kept} checkpoints, {disk:.1f} MiB on the disk"
        + ("" if passed else f": {output[-400:]}"),
        {
            "mib_per_1000_steps": slope,
            "slower": slower,
            "compilations": compiled,
            "compiled_before": int(later[0, 3]),
            "disk_mib": disk,
        },
    )


def _resident_mib(pid: int) -> float:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    sizes = [line.split()[1] for line in status.splitlines() if "VmRSS" in line]
    return int(sizes[0]) / 1024 if sizes else 0.0
