"""The report of a trained model: picks the images, explains them, writes the page."""

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

PACKAGES = ("fpn_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
MISTAKES, RIGHT = 2, 4


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
    labels, logits = rows["label"], jnp.asarray(rows["logits"], jnp.float32)
    probabilities = np.asarray(jax.nn.softmax(logits))

    def load_image(position: int) -> np.ndarray:
        image = records[int(rows["index"][position])]["image"]
        return experiment.eval_transform({"image": image})["image"]

    html.write(
        path,
        html.Contents(
            title=f"{path.absolute().parent.name}: {' or '.join(experiment.classes)}?",
            config=experiment.config.to_dict(),
            environment=_environment(),
            records=writers.read(metrics),
            classes=experiment.classes,
            labels=labels,
            probabilities=probabilities,
            ids=[records.id(int(index)) for index in rows["index"]],
            load_image=load_image,
            heat_maps=_explain(
                experiment,
                variables,
                _worth_explaining(labels, probabilities),
                load_image,
                probabilities.argmax(axis=1),
            ),
            skipped=skipped,
            split="validate",
            step=step,
        ),
    )


def _environment() -> dict[str, str]:
    """Returns what it ran on: versions, devices, how XLA and memory were tuned."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found["devices"] = f"{jax.device_count()} × {jax.devices()[0].device_kind}"
    for name in ("XLA_FLAGS", "GLIBC_TUNABLES"):
        if name in os.environ:
            found[name] = os.environ[name]
    return found


def _worth_explaining(labels: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Returns positions: the most confident mistakes, and right ones of each class."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    mistakes = [int(i) for i in order if predicted[i] != labels[i]][:MISTAKES]
    right_of_class = [
        [int(i) for i in range(len(labels)) if predicted[i] == labels[i] == label]
        for label in range(probabilities.shape[1])
    ]
    rounds = max(map(len, right_of_class), default=0)
    right = [of[n] for n in range(rounds) for of in right_of_class if n < len(of)]
    return mistakes + right[:RIGHT]


def _explain(experiment, variables, positions, load_image, predicted) -> list:
    """Returns the heat maps of images, towards the class that was predicted."""
    if not positions:
        return []
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

    images = np.stack([load_image(position) for position in positions])
    by_level = jax.device_get(
        maps(jax.device_get(variables), images, predicted[np.array(positions)])
    )
    return [
        html.HeatMap(position, {level: m[row] for level, m in by_level.items()})
        for row, position in enumerate(positions)
    ]
