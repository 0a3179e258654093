"""A loss that explodes."""

import pathlib
import re

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome

RATE = 1e30
"""A learning rate at which the second step has no loss any more."""


def exploding(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, policy: str
) -> Outcome:
    """Lets the loss explode; the run must name the step and keep a good checkpoint.

    With the policy `skip`, steps are left out and counted, until ten in a row are.
    """
    run = runs.start(
        scratch / "run",
        bench.steps,
        f"--config.optimizer.learning_rate={RATE * rng.uniform(1, 9)}",
        f"--config.train.on_nonfinite_step={policy}",
        "--config.train.evaluate_every_steps=1",
    )
    code, said = run.ended(), run.said()
    named = re.search(r"fpn_jax: step (\d+): the loss is", said)
    good = re.search(r"the last good checkpoint is step (\d+)", said)
    rows = [row for row in runs.records(scratch / "run") if "train/loss" in row]
    finite = [row["step"] for row in rows if isinstance(row["train/loss"], float)]
    if code != 1 or not named or not good or "Traceback" in said:
        return Outcome(False, f"exit code {code}: {said}")
    late = int(named[1]) - max(finite) - 1
    skipped = sum(row.get("train/skipped_steps", 0) for row in rows)
    leaves = runs.state(scratch / "run", int(good[1])).values()
    whole = all(np.isfinite(leaf).all() for leaf in leaves)
    held = whole and (late == 0 if policy == "stop" else skipped == late == 9)
    return Outcome(
        held,
        f"{policy}: finite up to step {max(finite)}, {skipped} skipped, ended at step "
        f"{named[1]}, kept step {good[1]}",
        {"steps_to_notice": late - skipped, "skipped": skipped},
    )
