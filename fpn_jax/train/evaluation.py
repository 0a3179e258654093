"""Evaluation of a whole split: exact figures, and the prediction of every record."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from fpn_jax.metrics.sums import Metric
from fpn_jax.train import parallel
from fpn_jax.train.state import Variables

Rows = dict[str, np.ndarray]
"""Arrays with one row a record: its `index`, its `label` and its predictions."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a split's evaluation gives, the same on every process.

    Attributes:
      metrics: Merged over all batches, devices and processes.
      rows: One row a record that counts, in the order of `index`.
      left_out: `index` of the records that were there and do not count.
    """

    metrics: dict[str, Metric]
    rows: Rows
    left_out: np.ndarray

    def figures(self) -> dict[str, float]:
        """Returns the metrics that are one number."""
        computed = {name: metric.compute() for name, metric in self.metrics.items()}
        return {name: v for name, v in computed.items() if isinstance(v, float)}


def evaluate(
    eval_step: Callable[[Variables, Any], tuple[dict[str, Metric], Any]],
    variables: Variables,
    batches: Iterable[dict[str, np.ndarray]],
) -> Evaluation:
    """Returns the evaluation of all batches.

    Args:
      eval_step: A mapped step, as of `parallel.map_eval_step`.
      variables: What is evaluated, replicated.
      batches: This process's share of the split; as many as every other process has.
    """
    metrics: dict[str, Metric] | None = None
    parts: list[Rows] = []
    for batch in batches:
        on_devices = parallel.shard(batch)
        batch_metrics, predictions = eval_step(variables, on_devices)
        on_host = {name: metric.on_host() for name, metric in batch_metrics.items()}
        metrics = (
            on_host
            if metrics is None
            else {name: metrics[name].merge(on_host[name]) for name in on_host}
        )
        predicted = {
            name: np.asarray(value).reshape(-1, *value.shape[2:])
            for name, value in predictions.items()
        }
        counts = {key: batch[key] for key in ("index", "label", "weight")}
        parts.append(counts | predicted)
    if metrics is None:
        raise ValueError("evaluation of no batches")
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    rows = parallel.gather(rows)
    weight, index = rows.pop("weight"), rows["index"]
    counted = np.flatnonzero(weight)
    counted = counted[np.argsort(index[counted], kind="stable")]
    # Padding that was no record at all has the index -1.
    left_out = np.sort(index[(weight == 0) & (index >= 0)])
    counted_rows = {key: value[counted] for key, value in rows.items()}
    return Evaluation(metrics, counted_rows, left_out)
