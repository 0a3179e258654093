"""Evaluation of a split: exact metrics, and the rows that the task keeps."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from fpn_jax.metrics.sums import Metric
from fpn_jax.train import parallel
from fpn_jax.train.state import Variables

Rows = dict[str, np.ndarray]
"""Arrays with one row per record: its `index`, and what the task keeps of it."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of a split, the same in every process.

    Attributes:
      metrics: Metrics, merged over all batches, devices and processes.
      rows: One row per record that was evaluated, sorted by `index`.
      uncounted: `index` of the records that were not evaluated: bad files.
      summary: Metrics that cannot be computed as sums over batches.
    """

    metrics: dict[str, Metric]
    rows: Rows
    uncounted: np.ndarray
    summary: dict[str, float] = dataclasses.field(default_factory=dict)

    def computed(self) -> dict[str, Any]:
        """Returns the value of every metric, the confusion matrix included."""
        values = {name: metric.compute() for name, metric in self.metrics.items()}
        return values | self.summary

    def scalars(self) -> dict[str, float]:
        """Returns the metrics that are a single number."""
        return {k: v for k, v in self.computed().items() if isinstance(v, float)}


def evaluate(
    eval_step: Callable[[Variables, Any], tuple[dict[str, Metric], Any]],
    variables: Variables,
    batches: Iterable[dict[str, np.ndarray]],
    summarize: Callable[[Rows], dict[str, float]] = lambda rows: {},
) -> Evaluation:
    """Evaluates a model on all batches of a split.

    Metrics are merged batch by batch; only the rows need memory for every record.

    Args:
      eval_step: A mapped step, as `parallel.map_eval_step` returns it.
      variables: The variables to evaluate, replicated.
      batches: This process's share of the split. Every process has the same number of
        batches.
      summarize: All rows → the metrics of `Evaluation.summary`.

    Raises:
      ValueError: There are no batches.
    """
    metrics: dict[str, Metric] | None = None
    parts: list[Rows] = []
    for batch in batches:
        on_devices = parallel.shard(batch)
        batch_metrics, kept = eval_step(variables, on_devices)
        on_host = {name: metric.on_host() for name, metric in batch_metrics.items()}
        metrics = (
            on_host
            if metrics is None
            else {name: metrics[name].merge(on_host[name]) for name in on_host}
        )
        kept = {
            name: np.asarray(value).reshape(-1, *value.shape[2:])
            for name, value in kept.items()
        }
        parts.append(kept | {key: batch[key] for key in ("index", "weight")})
    if metrics is None:
        raise ValueError("there are no batches to evaluate")
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    rows = parallel.gather(rows)
    weight, index = rows.pop("weight"), rows["index"]
    counted = np.flatnonzero(weight)
    counted = counted[np.argsort(index[counted], kind="stable")]
    # Padding at the end of a split has index -1.
    uncounted = np.sort(index[(weight == 0) & (index >= 0)])
    rows = {key: value[counted] for key, value in rows.items()}
    return Evaluation(metrics, rows, uncounted, summarize(rows))
