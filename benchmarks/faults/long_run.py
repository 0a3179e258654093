"""A long run of a small model: memory, step time and disk must stay flat."""

import pathlib
import time

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome

MOST_MIB_PER_1000_STEPS = 1.0
MOST_SLOWER = 0.1
"""Relative growth of the step time from the second fifth of the run to the last."""


def flat(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, steps: int
) -> Outcome:
    """Trains for so many steps, and watches the process from outside.

    The first fifth is left out: caches fill and the C library finds its size.
    """
    run = runs.start(
        scratch / "long",
        steps,
        # As after so many epochs; evaluations and checkpoints come with them.
        f"--config.train.evaluate_every_steps={max(steps // 20, 1)}",
        JAX_LOG_COMPILES="1",
    )
    rows, seen = [], 0
    while run.process.poll() is None:
        done = run.rows()
        if done >= seen + max(steps // 100, 1):
            seen = done
            compiled = run.said().count("] Finished XLA compilation of")
            resident = _resident_mib(run.process.pid)
            rows.append((done, resident, time.monotonic(), compiled))
        time.sleep(0.02)
    said = run.said()
    # After the last step the report is made, which compiles.
    later = np.array([row for row in rows if steps // 5 < row[0] < steps and row[1]])
    if run.process.returncode or len(later) < 2:
        return Outcome(False, f"exit code {run.process.returncode}: {said[-400:]}")
    slope = 1000 * float(np.polyfit(later[:, 0], later[:, 1], 1)[0])
    seconds = np.diff(later[:, 2]) / np.diff(later[:, 0])
    fifth = max(len(seconds) // 4, 1)
    slower = float(np.median(seconds[-fifth:]) / np.median(seconds[:fifth])) - 1
    compiled = int(later[-1, 3] - later[0, 3])
    disk = sum(p.stat().st_size for p in run.workdir.rglob("*") if p.is_file()) / 2**20
    kept = len(list((run.workdir / "checkpoints").glob("[0-9]*")))
    held = (
        slope < MOST_MIB_PER_1000_STEPS
        and slower < MOST_SLOWER
        and compiled == 0 < later[0, 3]
        and kept <= 3
    )
    return Outcome(
        held,
        f"{steps} steps: {slope:+.2f} MiB and {slower:+.1%} of the step "
        f"time, {compiled} compilations, {kept} checkpoints, {disk:.1f} MiB "
        f"on the disk" + ("" if held else f": {said[-400:]}"),
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
