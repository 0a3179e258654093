"""The contract of a task."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np

from fpn_jax.metrics.sums import Metric

Predictions = dict[str, jax.Array]
"""What a head returns, raw."""
Batch = dict[str, jax.Array]
"""`image`, `weight`, `index` and the fields that the task needs."""
Answer = dict[str, jax.Array]
"""What a model says of images: decoded predictions with a leading batch dimension."""
Rows = dict[str, jax.Array]
"""What evaluation keeps of a batch: arrays with one row an example."""


@runtime_checkable
class Task(Protocol):
    """What is learned; a frozen dataclass without parameters and without drawing.

    A task inherits from this class, which has defaults for what is optional. `decode`
    is the one place where predictions become answers: evaluation, prediction, export
    and report call it.

    Attributes:
      kind: Key of `fpn_jax.views.VIEWS`, which shows the answers.
      monitor: The metric that ranks checkpoints; larger is better.
      needs: Fields of `fpn_jax.data.records.FIELDS` that the losses read.
      reads: Keys that the head must return.
      mixable: Whether Mixup and CutMix are meaningful.
      exports: Keys of the answer that an exported model returns, a single one as a
        bare array; `()` exports all of them as a dict.
      framing: How evaluation frames an image: "crop" cuts out its middle, "letterbox"
        keeps all of it.
      max_boxes: Boxes that a batch holds for an image, where `needs` has boxes.
      explains: Whether `evidence` is defined, so that a report can show heat maps.
    """

    kind: ClassVar[str]
    monitor: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    reads: ClassVar[frozenset[str]]
    mixable: ClassVar[bool] = False
    exports: ClassVar[tuple[str, ...]] = ()
    framing: ClassVar[str] = "crop"
    max_boxes: ClassVar[int] = 64
    explains: ClassVar[bool] = False

    def head_arguments(self) -> dict[str, Any]:
        """Returns what the head must know, such as `num_classes`."""
        return {}

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns every loss of every example, name → `[B]`.

        Their sum is what is trained. The train step weighs the examples, sums over
        devices and divides; where there are several, it logs each.
        """
        ...

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, Metric]:
        """Returns metrics of the batch, each example counted by `batch["weight"]`."""
        ...

    def decode(self, predictions: Predictions, image_size: tuple[int, int]) -> Answer:
        """Returns the answers for a batch at fixed shapes; can be traced and exported.

        Places are in pixels of the network's input, under their names in `FIELDS`
        (`boxes`, `landmarks`, `mask`), so that the predictor can move them back to the
        image.

        Args:
          predictions: What the head returned.
          image_size: Height and width of the network's input, in pixels.
        """
        ...

    def keep(self, answer: Answer, batch: Batch) -> Rows:
        """Returns what evaluation keeps of a batch, one row an example; may be `{}`."""
        return {}

    def summarize(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns metrics of a whole split that are no sums, from all rows kept."""
        return {}

    def evidence(self, predictions: Predictions, target: jax.Array) -> jax.Array:
        """Returns the score `[B]` whose gradient explains an answer.

        Only called where `explains` is true.

        Args:
          predictions: What the head returned.
          target: What to explain for each example, int `[B]`.
        """
        ...
