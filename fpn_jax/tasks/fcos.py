"""Detection without anchors: FCOS, arXiv 1904.01355."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fpn_jax import errors
from fpn_jax.ops import boxes as box_ops
from fpn_jax.ops import fcos
from fpn_jax.tasks.base import Batch, Inspection, Predictions
from fpn_jax.tasks.detection import (
    ALPHA,
    GAMMA,
    Candidates,
    Detection,
    Truth,
    check_weight,
    inside,
    joined,
    truths,
)


@dataclasses.dataclass(frozen=True)
class FCOSDetection(Detection):
    """Boxes from locations near the centre of an object, on the level of its size.

    A location is responsible for a box if it lies inside of it, near its centre, and if
    the greatest distance to a side belongs to its level; of several boxes it takes the
    smallest (`fpn_jax.ops.fcos.assign`). Focal loss of the classes, `1 − GIoU`, and
    cross-entropy of the centerness; each is a sum, divided by the number of responsible
    locations of the image, or by 1 if it has none. The score is the square root of the
    probability of the class times the centerness.

    Attributes:
      radius: Greatest distance from the centre of a box, in strides, above 0.
      level_range: Greatest distance to a side for all levels but the coarsest, in
        strides; a level begins where the finer one ends.
      box_weight: Weight of the loss of the box, 0 or more.
      centerness_weight: Weight of the loss of the centerness, 0 or more.

    Raises:
      InputError: A number is out of range, or a name is unknown.
    """

    radius: float = 1.5
    level_range: float = 8.0
    box_weight: float = 1.0
    centerness_weight: float = 1.0

    reads: ClassVar[frozenset[str]] = frozenset(
        {"class_logits", "distances", "centerness_logits"}
    )

    def __post_init__(self):
        super().__post_init__()
        errors.within("task.radius", self.radius, 0, math.inf, open_low=True)
        errors.within("task.level_range", self.level_range, 0, math.inf, open_low=True)
        check_weight("task.box_weight", self.box_weight)
        check_weight("task.centerness_weight", self.centerness_weight)

    def inspect(
        self, rows: Mapping[str, np.ndarray], predictions: Predictions
    ) -> Inspection:
        """Returns what every detector says, and how many boxes have no location."""
        found = super().inspect(rows, predictions)
        cells, lost, total = self._cells(predictions), 0, 0
        for truth in truths(rows):
            match = self._assigned(cells, truth)
            number = jnp.arange(truth.boxes.shape[1])[:, None]
            taken = (match[:, None] == number).any(-1)
            total += int(truth.valid.sum())
            lost += int((truth.valid & ~taken).sum())
        line = (
            f"{lost} of {total} boxes have no location, and are not learned: they are "
            "smaller than a cell, or smaller boxes have their locations"
        )
        return Inspection((*found.lines, line), found.passed)

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns `class`, `box` and `centerness` of every example."""
        truth = Truth.of(batch)
        cells = self._cells(predictions)
        match = self._assigned(cells, truth)
        positive, chosen = match >= 0, jnp.maximum(match, 0)
        count = jnp.maximum(positive.sum(-1), 1)
        label = jnp.take_along_axis(truth.labels, chosen, axis=1)
        target = jax.nn.one_hot(jnp.where(positive, label, -1), self.num_classes)
        logits = joined(predictions["class_logits"])
        focal = optax.sigmoid_focal_loss(logits, target, alpha=ALPHA, gamma=GAMMA)
        hidden = inside(cells.locations, truth.boxes, truth.ignored)
        counted = positive | ~hidden

        boxes = jnp.take_along_axis(truth.boxes, chosen[..., None], axis=1)
        sides = fcos.distances(cells.locations, boxes)
        predicted = joined(predictions["distances"])
        centre = joined(predictions["centerness_logits"])
        giou = box_ops.giou(fcos.from_distances(cells.locations, predicted), boxes)
        centerness = optax.sigmoid_binary_cross_entropy(
            centre, jax.lax.stop_gradient(fcos.centerness(sides))
        )
        return {
            "class": jnp.where(counted, focal.sum(-1), 0).sum(-1) / count,
            "box": self.box_weight * (jnp.where(positive, 1 - giou, 0).sum(-1) / count),
            "centerness": self.centerness_weight
            * (jnp.where(positive, centerness, 0).sum(-1) / count),
        }

    def proposed(
        self, predictions: Predictions, image_size: tuple[int, int]
    ) -> dict[int, Candidates]:
        """Returns level → boxes, and the square roots of class times centerness."""
        found = {}
        for level, logits in predictions["class_logits"].items():
            centre = predictions["centerness_logits"][level][..., None]
            scores = jnp.sqrt(jax.nn.sigmoid(logits) * jax.nn.sigmoid(centre))
            places = self._locations(level, logits.shape[1:3])
            sides = jax.lax.collapse(predictions["distances"][level], 1, 3)
            found[level] = Candidates(
                fcos.from_distances(places, sides), jax.lax.collapse(scores, 1, 3)
            )
        return found

    def _assigned(self, cells: "_Cells", truth: Truth) -> jax.Array:
        """Returns the number of the box of every location, int32 `[B, N]`."""
        return fcos.assign(
            cells.locations,
            cells.strides,
            truth.boxes,
            truth.valid,
            limits=cells.limits,
            radius=self.radius,
        )

    def _locations(self, level: int, size: tuple[int, int]) -> jax.Array:
        """Returns x and y of every cell of a level, `[h · w, 2]`."""
        return fcos.locations(size, 2**level, self.first_cell(level))

    def _cells(self, predictions: Predictions) -> "_Cells":
        """Returns the cells of all levels, the finest first."""
        sizes = {k: v.shape[1:3] for k, v in predictions["class_logits"].items()}
        least, places, strides, limits = 0.0, [], [], []
        for level, size in sizes.items():
            last = level == max(sizes)
            greatest = math.inf if last else self.level_range * 2**level
            count = size[0] * size[1]
            places.append(self._locations(level, size))
            strides.append(jnp.full(count, 2.0**level))
            limits.append(jnp.tile(jnp.array([[least], [greatest]]), count))
            least = greatest
        low, high = jnp.concatenate(limits, axis=1)
        return _Cells(jnp.concatenate(places), jnp.concatenate(strides), (low, high))


class _Cells(NamedTuple):
    """The cells of all levels: `locations` `[N, 2]`, `strides` `[N]`, `limits` twice
    `[N]`, as `fpn_jax.ops.fcos.assign` takes them."""

    locations: jax.Array
    strides: jax.Array
    limits: tuple[jax.Array, jax.Array]
