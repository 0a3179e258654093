"""`--mode=report`: writes an HTML page on a split and a checkpoint of a run."""

import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from fpn_jax.data.records import Source
from fpn_jax.modes import Options
from fpn_jax.parts import source
from fpn_jax.report import attribution, html
from fpn_jax.train import writers
from fpn_jax.train.evaluation import Evaluation
from fpn_jax.trained import Trained, load
from fpn_jax.views import VIEWS
from fpn_jax.views.base import Evaluated

SUMMARY = "Writes a report on any split and checkpoint of a run."
TAKES = frozenset({"workdir", "checkpoint", "split", "data_root"})
NEEDS = frozenset({"workdir"})

PACKAGES = ("fpn_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
"""Packages whose versions the report shows."""


def run(options: Options) -> int:
    """Evaluates a split, writes the report on it, and returns the exit code.

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
    path = write_report(trained, options.split, records, evaluation, skipped)
    print(f"Report on the checkpoint of step {trained.step}: {path}")
    return 0


def write_report(
    trained: Trained,
    split: str,
    records: Source,
    evaluation: Evaluation,
    skipped: Sequence[tuple[str, str]],
) -> Path:
    """Writes the report on a split of a run, and returns its path.

    Args:
      trained: The checkpoint that was evaluated.
      split: Name of the split.
      records: Records of the split.
      evaluation: Evaluation of the split.
      skipped: `(id, reason)` of files that could not be decoded.
    """
    experiment, workdir = trained.experiment, trained.workdir
    info, view = experiment.info, VIEWS[experiment.task.kind]
    shown = evaluated(trained, split, records, evaluation)
    path = workdir.report(split)
    html.write(
        path,
        html.Contents(
            title=workdir.path.absolute().name,
            config=experiment.config.to_dict(),
            environment=_environment(),
            entries=writers.read(workdir.metrics),
            headline=view.headline(shown, info),
            sections=view.sections(shown, info),
            skipped=skipped,
            step=trained.step,
            split=split,
        ),
    )
    return path


def evaluated(
    trained: Trained, split: str, records: Source, evaluation: Evaluation
) -> Evaluated:
    """Returns an evaluated split in the form that a view reads.

    Args:
      trained: The checkpoint that was evaluated.
      split: Name of the split.
      records: Records of the split.
      evaluation: Evaluation of the split.
    """
    transform = trained.experiment.eval_transform
    indices = [int(index) for index in evaluation.rows["index"]]

    def load_image(row: int) -> np.ndarray:
        image = records[indices[row]]["image"]
        return transform({"image": image})["image"]

    def load_truth(row: int) -> dict:
        record = records[indices[row]]
        needed = {name: record[name] for name in trained.experiment.task.needs}
        return transform({"image": record["image"], **needed})

    def explain(rows: Sequence[int], targets: np.ndarray) -> list[dict]:
        images = np.stack([load_image(row) for row in rows])
        maps = _heat_maps(trained, images, np.asarray(targets, np.int32))
        return [
            {level: values[position] for level, values in maps.items()}
            for position in range(len(rows))
        ]

    return Evaluated(
        rows=evaluation.rows,
        ids=[records.id(index) for index in indices],
        metrics=evaluation.computed(),
        split=split,
        load_image=load_image,
        explain=explain if trained.experiment.task.explains else None,
        answers=lambda rows: _answers(trained, [load_image(row) for row in rows]),
        load_truth=load_truth,
    )


def _answers(trained: Trained, images: Sequence[np.ndarray]) -> list[dict]:
    """Returns the answers to evaluated crops, in their pixels."""
    answers = jax.device_get(trained.predictor().compiled(np.stack(images)))
    return [
        {name: values[row] for name, values in answers.items()}
        for row in range(len(images))
    ]


def _heat_maps(
    trained: Trained, images: np.ndarray, targets: np.ndarray
) -> dict[int, np.ndarray]:
    """Returns level → class activation maps `[N, h, w]` for the targets."""
    model, task = trained.experiment.model, trained.experiment.task

    @jax.jit
    def maps(variables, images, targets):
        return attribution.heat_maps(
            lambda v, x: model.apply(v, x, train=False, method="features"),
            lambda v, p: task.evidence(
                model.apply(v, p, train=False, method="predict"), targets
            ),
            variables,
            images,
        )

    variables = jax.device_get(trained.variables)
    return jax.device_get(maps(variables, images, targets))


def _environment() -> dict[str, str]:
    """Returns versions of packages, devices, and environment variables."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found["devices"] = f"{jax.device_count()} × {jax.devices()[0].device_kind}"
    for name in ("XLA_FLAGS", "GLIBC_TUNABLES"):
        if name in os.environ:
            found[name] = os.environ[name]
    return found
