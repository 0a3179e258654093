"""Share of the wall time of a training in which the device waits for the loop.

    python -m benchmarks.loop [--root=DIR] [--case=resnet18] [--repeats=5]

Two contenders run in turns: a complete training of a hundred steps, on the photographs
of `DIR` or on drawn animals, and the train step alone (`bare`) on one batch that is on
the device. The share is `1 - bare / in the loop`, computed from the seconds per step.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks import stepping, timing
from benchmarks.train_step import CASES, arguments_of


def seconds_in_loop(arguments: list[str], steps: int, images: int) -> float:
    """Returns the seconds per step of a training, without its first steps.

    Args:
      arguments: Command line of the training.
      steps: Length of the training.
      images: Images per step.
    """
    from fpn_jax.modes import Options
    from fpn_jax.modes.train import run

    given = stepping.given_by(
        [
            *arguments,
            f"--config.train.total_steps={steps}",
            f"--config.train.log_every_steps={steps // 2}",
            f"--config.train.evaluate_every_steps={steps}",
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        if run(Options(given=given, workdir=folder)):
            raise RuntimeError("the training failed")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line).get("train/images_per_second") for line in lines]
    # The last rate covers the latest steps only, which do not compile any more.
    return images / [rate for rate in rates if rate][-1]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", help="folder with Train × Cat and Dog; without it, drawn animals"
    )
    parser.add_argument("--case", choices=CASES, default="resnet18")
    parser.add_argument("--steps", type=int, default=100, help="length of a training")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in turns")
    given = parser.parse_args()
    stepping.start()
    from fpn_jax.train.training_metrics import RATE_STEPS

    if given.steps < RATE_STEPS + 10:
        parser.error(
            f"--steps={given.steps}: the speed is measured over the last {RATE_STEPS} "
            f"steps, and the first steps compile; take {RATE_STEPS + 10} or more"
        )
    case = CASES[given.case]
    arguments = [*arguments_of(case, "float32"), "--config.optimizer.warmup_steps=0"]
    arguments += ["--config.optimizer.learning_rate=1e-4"]
    arguments += stepping.data_of(given.root)
    if given.root:
        arguments += ["--config.data.source.validate_fraction=0.05"]
    bare = stepping.Stepping(arguments)
    taken: dict[str, list[float]] = {"bare": [], "in the loop": []}
    bare.run(2)
    for _ in range(given.repeats):
        taken["bare"].append(bare.seconds(given.steps // 2))
        seconds = seconds_in_loop(arguments, given.steps, case.images)
        taken["in the loop"].append(seconds)
        # Measured before and after the training, because the machine's speed changes.
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
