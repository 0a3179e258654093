"""The report of a trained model: explains images and writes the page."""

import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.data.records import Source
from fpn_jax.experiment import Experiment
from fpn_jax.report import attribution, html
from fpn_jax.train import writers
from fpn_jax.train.evaluation import Evaluation
from fpn_jax.views import VIEWS
from fpn_jax.views.base import Evaluated

PACKAGES = ("fpn_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write(
    path: Path,
    experiment: Experiment,
    *,
    step: int,
    variables: Any,
    evaluation: Evaluation,
    records: Source,
    skipped: Sequence[tuple[str, str]],
    metrics: Path,
) -> None:
    """Writes `report.html`.

    Args:
      path: The page.
      experiment: What was trained.
      step: Step of the checkpoint.
      variables: The checkpoint's variables.
      evaluation: Of the validate split.
      records: The validate split.
      skipped: Bad files, as `(id, reason)`.
      metrics: The run's `metrics.jsonl`.
    """
    rows = evaluation.rows
    logits = jnp.asarray(rows["logits"], jnp.float32)
    probabilities = np.asarray(jax.nn.softmax(logits))

    def load_image(row: int) -> np.ndarray:
        image = records[int(rows["index"][row])]["image"]
        return experiment.eval_transform(image)

    evaluated = Evaluated(
        rows={
            "index": rows["index"],
            "label": rows["label"],
            "predicted": probabilities.argmax(axis=1),
            "probabilities": probabilities,
        },
        ids=[records.id(int(index)) for index in rows["index"]],
        metrics={name: m.compute() for name, m in evaluation.metrics.items()},
        split="validate",
        load_image=load_image,
        explain=functools.partial(_explain, experiment, variables, load_image),
    )
    view, info = VIEWS["classes"], _Info(experiment.classes)
    html.write(
        path,
        html.Contents(
            title=f"{path.absolute().parent.name}: {' or '.join(experiment.classes)}?",
            config=experiment.config.to_dict(),
            environment=_environment(),
            entries=writers.read(metrics),
            headline=view.headline(evaluated, info),
            sections=view.sections(evaluated, info),
            skipped=skipped,
            step=step,
            split="validate",
        ),
    )


@dataclasses.dataclass(frozen=True)
class _Info:
    classes: tuple[str, ...]
    landmark_names: tuple[str, ...] = ()


def _environment() -> dict[str, str]:
    """Returns what it ran on: versions, devices, how XLA and memory were tuned."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found["devices"] = f"{jax.device_count()} × {jax.devices()[0].device_kind}"
    for name in ("XLA_FLAGS", "GLIBC_TUNABLES"):
        if name in os.environ:
            found[name] = os.environ[name]
    return found


def _explain(experiment, variables, load_image, rows, targets) -> list:
    """Returns the heat maps by level of each row, towards its target."""
    model = experiment.model

    @jax.jit
    def maps(variables, images, target):
        return attribution.heat_maps(
            lambda v, x: model.apply(v, x, train=False, method="features"),
            lambda v, p: model.apply(v, p, train=False, method="predict"),
            variables,
            images,
            target,
        )

    images = np.stack([load_image(row) for row in rows])
    by_level = jax.device_get(maps(jax.device_get(variables), images, targets))
    return [
        {level: of_level[position] for level, of_level in by_level.items()}
        for position in range(len(rows))
    ]
