"""The interface of a task."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from fpn_jax.metrics.sums import Metric

Predictions = dict[str, jax.Array]
"""The raw outputs of a head."""
Batch = dict[str, jax.Array]
"""`image`, `weight`, `index` and the fields that the task needs."""
Answer = dict[str, jax.Array]
"""Decoded predictions, with a leading batch dimension."""
Rows = dict[str, jax.Array]
"""Arrays with one row per example, which evaluation keeps."""


class Inspection(NamedTuple):
    """What a check prints about the annotations of a split.

    Attributes:
      lines: The lines.
      passed: Whether nothing is wrong.
    """

    lines: tuple[str, ...]
    passed: bool


@runtime_checkable
class Task(Protocol):
    """A task: losses, metrics, and how to decode predictions.

    A task is a frozen dataclass that inherits from this class, which defines defaults.
    It has no trained parameters and draws no pictures. Only `decode` turns predictions
    into answers; evaluation, prediction, export and the report call it.

    Attributes:
      kind: Key of `fpn_jax.views.VIEWS`; that view shows the answers.
      monitor: Metric that ranks checkpoints; larger is better.
      needs: Fields of `fpn_jax.data.records.FIELDS` that the losses read.
      reads: Keys of the predictions that the task reads; the head must return them.
      mixable: Whether Mixup and CutMix are meaningful.
      exports: Keys of the answer that an exported model returns. A single key is
        returned as an array, several as a dict; `()` means all keys.
      framing: How evaluation fits an image to the input: "crop" crops its centre,
        "letterbox" pads it.
      max_boxes: Maximum number of boxes per image in a batch, if `needs` has boxes.
      inspects: Whether `inspect` is defined.
      explains: Whether `evidence` is defined, so that a report can show heat maps.
      places: Whether predictions are read by place, so that the cells of the backbone
        must lie where its levels say.
      definitions: Name of a metric → what it measures, which is printed beside it.
    """

    kind: ClassVar[str]
    monitor: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    reads: ClassVar[frozenset[str]]
    mixable: ClassVar[bool] = False
    exports: ClassVar[tuple[str, ...]] = ()
    framing: ClassVar[str] = "crop"
    max_boxes: ClassVar[int] = 100
    inspects: ClassVar[bool] = False
    explains: ClassVar[bool] = False
    places: ClassVar[bool] = False
    definitions: ClassVar[Mapping[str, str]] = {}

    def head_arguments(self) -> dict[str, Any]:
        """Returns the arguments of the head that the task sets, e.g. `num_classes`."""
        return {}

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns every loss of every example, name → `[B]`.

        The sum of the losses is trained. The train step weights the examples, sums over
        devices and divides; if there are several losses, it logs each of them.

        Args:
          predictions: Outputs of the head.
          batch: A training batch.
        """
        ...

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, Metric]:
        """Returns the metrics of a batch, with examples weighted by `batch["weight"]`.

        Args:
          predictions: Outputs of the head.
          batch: An evaluation batch.
        """
        ...

    def decode(self, predictions: Predictions, image_size: tuple[int, int]) -> Answer:
        """Returns the answers for a batch, in fixed shapes, so that it can be exported.

        Boxes, landmarks and masks have their names in `FIELDS` and are in pixels of the
        network's input. The predictor maps them to pixels of the image.

        Args:
          predictions: Outputs of the head.
          image_size: Height and width of the network's input, in pixels.
        """
        ...

    def keep(self, answer: Answer, batch: Batch) -> Rows:
        """Returns the rows that evaluation keeps of a batch; may be `{}`.

        Args:
          answer: The output of `decode`.
          batch: The evaluation batch.
        """
        return {}

    def summarize(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns metrics of a split that cannot be computed as sums over batches.

        Args:
          rows: The rows of the split, as `keep` returned them.
        """
        return {}

    def inspect(
        self, rows: Mapping[str, np.ndarray], predictions: Predictions
    ) -> Inspection:
        """Returns what the annotations of a split mean to this task, for a check.

        This method is called only if `inspects` is true.

        Args:
          rows: The boxes of every record, and the fields of their values, padded; in
            pixels of the network's input.
          predictions: Shapes of the outputs of the head for one image.
        """
        ...

    def evidence(self, predictions: Predictions, target: jax.Array) -> jax.Array:
        """Returns the score `[B]` whose gradient explains an answer.

        This method is called only if `explains` is true.

        Args:
          predictions: Outputs of the head.
          target: Class to explain for each example, int `[B]`.
        """
        ...
