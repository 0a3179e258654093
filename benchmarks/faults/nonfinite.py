"""A loss that becomes infinite or NaN."""

import pathlib
import re

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome

RATE = 1e30
"""A learning rate at which the loss of the second step is not finite."""


def exploding(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, policy: str
) -> Outcome:
    """Makes the loss explode: the run must name the step and keep a good checkpoint.

    With the policy `skip` the run must skip and count nine steps in a row, and end at
    the tenth.

    Args:
      bench: Gives the length of the run.
      scratch: An empty folder.
      rng: Chooses the learning rate.
      policy: `stop` or `skip`, the value of `train.on_nonfinite_step`.
    """
    run = runs.start(
        scratch / "run",
        bench.steps,
        f"--config.optimizer.learning_rate={RATE * rng.uniform(1, 9)}",
        f"--config.train.on_nonfinite_step={policy}",
        "--config.train.evaluate_every_steps=1",
    )
    code, output = run.wait(), run.output()
    named = re.search(r"fpn_jax: step (\d+): the loss is", output)
    good = re.search(r"the last good checkpoint is step (\d+)", output)
    rows = [row for row in runs.records(scratch / "run") if "train/loss" in row]
    finite = [row["step"] for row in rows if isinstance(row["train/loss"], float)]
    if code != 1 or not named or not good or "Traceback" in output:
        return Outcome(False, f"exit code {code}: {output}")
    late = int(named[1]) - max(finite) - 1
    skipped = sum(row.get("train/skipped_steps", 0) for row in rows)
    leaves = runs.state(scratch / "run", int(good[1])).values()
    intact = all(np.isfinite(leaf).all() for leaf in leaves)
    return Outcome(
        intact and (late == 0 if policy == "stop" else skipped == late == 9),
        f"{policy}: finite up to step {max(finite)}, {skipped} skipped, ended at step "
        f"{named[1]}, kept the checkpoint of step {good[1]}",
        {"steps_to_notice": late - skipped, "skipped": skipped},
    )
