"""What the loop around the step costs: share of wall time in which the device waits.

    python -m benchmarks.loop [--root=DIR] [--case=resnet18] [--repeats=5]

A real training of a hundred steps, on the photographs of `DIR` or on drawn animals, and
the bare train step on one batch that lies on the device already, in turns. The share is
`1 - bare / in the loop`, of the seconds a step.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks import stepping, timing
from benchmarks.train_step import CASES, arguments_of


def seconds_in_loop(arguments: list[str], steps: int, images: int) -> float:
    """Returns the seconds a step of a real training, after it has warmed up."""
    from fpn_jax import run

    with tempfile.TemporaryDirectory() as folder:
        planned = stepping.experiment_of(
            [
                *arguments,
                f"--config.train.total_steps={steps}",
                f"--config.train.log_every_steps={steps // 2}",
                f"--config.train.evaluate_every_steps={steps}",
            ]
        )
        if run.train(planned.config, folder):
            raise RuntimeError("the training failed")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line).get("train/images_per_second") for line in lines]
    # The last record's rate is that of the latest steps, all of them compiled.
    return images / [rate for rate in rates if rate][-1]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="Train × Cat/Dog; drawn animals without")
    parser.add_argument("--case", choices=CASES, default="resnet18")
    parser.add_argument("--steps", type=int, default=100, help="of a training")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in turns")
    given = parser.parse_args()
    stepping.start()
    from fpn_jax.train.training_metrics import RATE_STEPS

    if given.steps < RATE_STEPS + 10:
        parser.error(
            f"--steps={given.steps}: the speed is that of the last {RATE_STEPS}, and "
            f"the first ones compile; take {RATE_STEPS + 10} or more"
        )
    case = CASES[given.case]
    arguments = [*arguments_of(case, "float32"), "--config.optimizer.warmup_steps=0"]
    arguments += ["--config.optimizer.learning_rate=1e-4"]
    arguments += stepping.data_of(given.root)
    if given.root:
        arguments += ["--config.data.folder.validate_fraction=0.05"]
    bare = stepping.Stepping(arguments)
    taken: dict[str, list[float]] = {"bare": [], "in the loop": []}
    bare.run(2)
    for _ in range(given.repeats):
        taken["bare"].append(bare.seconds(given.steps // 2))
        seconds = seconds_in_loop(arguments, given.steps, case.images)
        taken["in the loop"].append(seconds)
        # On both sides of the training, lest the machine drift between the two.
        taken["bare"].append(bare.seconds(given.steps // 2))
    spreads = {what: timing.spread(times) for what, times in taken.items()}
    report = timing.Report("loop")
    for what, spread in spreads.items():
        report.add(
            case=given.case,
            data="photographs" if given.root else "drawn",
            what=what,
            seconds=spread["median"],
            shortest=spread["shortest"],
            longest=spread["longest"],
            share_waiting=1 - spreads["bare"]["median"] / spread["median"],
        )
    report.show()


if __name__ == "__main__":
    main()
