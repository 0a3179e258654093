"""`--mode=evaluate`: computes the metrics of a trained model on a split."""

import csv
import json

import jax
import numpy as np

from fpn_jax.data.records import Source
from fpn_jax.modes import Options
from fpn_jax.modes.report import evaluated
from fpn_jax.parts import source
from fpn_jax.train.evaluation import Evaluation
from fpn_jax.trained import Trained, load
from fpn_jax.views import VIEWS

SUMMARY = "Computes the metrics of a trained model on a split, and lists its mistakes."
TAKES = frozenset({"workdir", "checkpoint", "split", "data_root"})
NEEDS = frozenset({"workdir"})


def run(options: Options) -> int:
    """Evaluates a split, prints and writes its metrics, and returns the exit code.

    Args:
      options: The values of the flags.

    Raises:
      InputError: The checkpoint or the split does not exist, or the split has other
        classes than the model.
    """
    trained = load(options.workdir, options.checkpoint)
    records = source(
        trained.data_config(options.data_root),
        options.split,
        model_classes=trained.experiment.info.classes,
    )
    evaluation, skipped = trained.experiment.evaluate(trained.variables, records)
    if jax.process_index() == 0:
        _write(trained, options.split, records, evaluation, skipped)
    return 0


def _rounded(value: object) -> object:
    """Returns a number, or the numbers of a list, to four digits."""
    if isinstance(value, list) and all(isinstance(item, float) for item in value):
        return [round(item, 4) for item in value]
    return f"{value:.4f}" if isinstance(value, float) else value


def _write(
    trained: Trained,
    split: str,
    records: Source,
    evaluation: Evaluation,
    skipped: list[tuple[str, str]],
) -> None:
    experiment, workdir = trained.experiment, trained.workdir
    metrics = {
        "split": split,
        "step": trained.step,
        "records": len(evaluation.rows["index"]),
        "skipped": [": ".join(file) for file in skipped],
        "classes": list(experiment.info.classes),
        **evaluation.computed(),
    }
    probabilities = evaluation.rows.get("probabilities")
    if probabilities is not None:
        finite = np.isfinite(probabilities).reshape(len(probabilities), -1).all(axis=1)
        if not finite.all():
            metrics["not_finite"] = int(np.count_nonzero(~finite))
    # The metrics are printed first, so that an unwritable workdir does not lose them.
    definitions = experiment.task.definitions
    for name, value in metrics.items():
        shown = _rounded(value)
        meaning = f"  ({definitions[name]})" if name in definitions else ""
        print(f"{name}: {shown}{meaning}", flush=True)
    workdir.evaluation(split).write_text(json.dumps(metrics, indent=2) + "\n")
    view = VIEWS[experiment.task.kind]
    mistakes = view.mistakes(
        evaluated(trained, split, records, evaluation), experiment.info
    )
    path = workdir.mistakes(split)
    # A file name may be invalid UTF-8; surrogateescape writes its original bytes.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        columns = list(mistakes[0]) if mistakes else ["id"]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(mistakes)
    print(f"Metrics: {workdir.evaluation(split)}\nMistakes: {path}")
