"""Landmarks: the places of named points, from heat maps or directly."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fpn_jax import errors
from fpn_jax.metrics import sums
from fpn_jax.ops import heat_maps, regression
from fpn_jax.tasks.base import Answer, Batch, Predictions, Rows, Task

NEAR = 0.1
"""Error up to which a point counts as found, and above which an image has failed."""
HEAT_MAP_LOSSES = ("cross_entropy", "squared")
TINY = 1e-20
"""Smallest sum of a Gaussian over the cells of a map."""
VISIBLE = 0.5
"""Probability from which a point counts as visible."""


@dataclasses.dataclass(frozen=True)
class _Landmarks(Task):
    """What both tasks share: visibility, metrics and answers.

    Attributes:
      num_landmarks: Number of points, 1 or more.
      eyes: Numbers of the two landmarks whose distance is the unit of the errors, such
        as `(0, 1)`.
      visibility_weight: Weight of the logistic loss of the visibility, 0 or more.
    """

    num_landmarks: int
    eyes: tuple[int, int] = (0, 1)
    visibility_weight: float = 0.1

    kind: ClassVar[str] = "points"
    monitor: ClassVar[str] = "points_found"
    needs: ClassVar[frozenset[str]] = frozenset({"landmarks"})
    framing: ClassVar[str] = "letterbox"
    places: ClassVar[bool] = True
    definitions: ClassVar[Mapping[str, str]] = {
        "loss": "mean over the images of the sum of the losses",
        "nme": "mean over the images of the mean distance of the visible points from "
        "the truth, divided by the distance of the eyes",
        "median_error": "median over the images of that mean distance",
        "failure_rate": "share of the images whose mean error is above 0.1 distances "
        "of the eyes",
        "points_found": "share of the visible points within 0.1 distances of the eyes",
        "visibility_accuracy": "share of the points whose visibility is right",
    }

    def __post_init__(self):
        errors.at_least("num_landmarks", self.num_landmarks, 1, whole=True)
        for index in self.eyes:
            errors.within("task.eyes", index, 0, self.num_landmarks - 1)
        if len(self.eyes) != 2 or self.eyes[0] == self.eyes[1]:
            raise errors.InputError(
                f"task.eyes is {self.eyes}; give the numbers of two landmarks"
            )
        name = "task.visibility_weight"
        errors.within(name, self.visibility_weight, 0, math.inf, open_high=True)

    def head_arguments(self) -> dict[str, Any]:
        """Returns `num_landmarks`."""
        return {"num_landmarks": self.num_landmarks}

    @abc.abstractmethod
    def places_of(
        self, predictions: Predictions, image_size: tuple[int, int]
    ) -> jax.Array:
        """Returns the predicted places, float32 `[B, K, 2]`, x and y in pixels.

        Args:
          predictions: Outputs of the head.
          image_size: Height and width of the network's input, in pixels.
        """

    @abc.abstractmethod
    def point_loss(
        self, predictions: Predictions, points: jax.Array, image_size: tuple[int, int]
    ) -> jax.Array:
        """Returns the loss of every point, `[B, K]`.

        Args:
          predictions: Outputs of the head.
          points: True places, `[B, K, 2]`, in pixels.
          image_size: Height and width of the network's input, in pixels.
        """

    def losses(self, predictions: Predictions, batch: Batch) -> dict[str, jax.Array]:
        """Returns `points`, the mean over the visible points, and `visibility`."""
        visible = batch["landmarks"][..., 2] > 0
        # Places of invisible points are replaced first, because they may be NaN.
        points = jnp.where(visible[..., None], batch["landmarks"][..., :2], 0)
        each = self.point_loss(predictions, points, batch["image"].shape[1:3])
        logits = predictions["visibility_logits"].astype(jnp.float32)
        seen = optax.sigmoid_binary_cross_entropy(logits, visible.astype(jnp.float32))
        total = jnp.where(visible, each, 0).sum(-1)
        return {
            "points": total / jnp.maximum(visible.sum(-1), 1),
            "visibility": self.visibility_weight * seen.mean(-1),
        }

    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, sums.Metric]:
        """Returns the metrics of `definitions`."""
        weight, size = batch["weight"], batch["image"].shape[1:3]
        error, counted = self._errors(self.places_of(predictions, size), batch)
        logits = predictions["visibility_logits"]
        visible = batch["landmarks"][..., 2] > 0
        mean, measured = _mean_error(error, counted)
        images = weight * measured
        points = weight[:, None] * counted
        return {
            "loss": sums.Mean.of(sum(self.losses(predictions, batch).values()), weight),
            "nme": sums.Mean.of(mean, images),
            "failure_rate": sums.Accuracy.of(mean > NEAR, True, images),
            "points_found": sums.Accuracy.of(error <= NEAR, True, points),
            "visibility_accuracy": sums.Accuracy.of(
                jax.nn.sigmoid(logits) >= VISIBLE, visible, weight
            ),
        }

    def decode(self, predictions: Predictions, image_size: tuple[int, int]) -> Answer:
        """Returns the points of every image, in pixels of the network's input.

        Returns:
          `landmarks` float32 `[B, K, 3]`, x, y and whether the point is visible, and
          `landmark_scores` float32 `[B, K]`, the probability that it is.
        """
        places = self.places_of(predictions, image_size)
        logits = predictions["visibility_logits"].astype(jnp.float32)
        score = jax.nn.sigmoid(logits)
        visible = (score >= VISIBLE).astype(jnp.float32)
        return {
            "landmarks": jnp.concatenate([places, visible[..., None]], axis=-1),
            "landmark_scores": score,
        }

    def keep(self, answer: Answer, batch: Batch) -> Rows:
        """Returns predicted and true points of every example, and their errors.

        An error is NaN where the point is not visible or the eyes are at one place, and
        infinite where the predicted place is NaN.
        """
        error, counted = self._errors(answer["landmarks"][..., :2], batch)
        return {
            "landmarks": answer["landmarks"],
            "true_landmarks": batch["landmarks"],
            "error": jnp.where(counted, error, jnp.nan),
        }

    def summarize(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns `median_error`, NaN if no image has an error."""
        error = rows["error"]
        measured = ~np.isnan(error).all(axis=1)
        if not measured.any():
            return {"median_error": math.nan}
        return {"median_error": float(np.median(np.nanmean(error[measured], axis=1)))}

    def _errors(self, places: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns errors in distances of the eyes, and which count, `[B, K]` both."""
        truth = batch["landmarks"].astype(jnp.float32)
        visible = truth[..., 2] > 0
        first, second = (truth[:, index, :2] for index in self.eyes)
        unit = jnp.linalg.norm(first - second, axis=-1)[:, None]
        counted = visible & (unit > 0) & jnp.isfinite(unit)
        distance = jnp.linalg.norm(places - truth[..., :2], axis=-1)
        # NaN would count as no failure, because no comparison with it is true.
        distance = jnp.where(jnp.isnan(distance), jnp.inf, distance)
        return jnp.where(counted, distance / jnp.where(counted, unit, 1), 0), counted


def _mean_error(error: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean error of every image, and whether it has one."""
    count = counted.sum(-1)
    return error.sum(-1) / jnp.maximum(count, 1), count > 0


@dataclasses.dataclass(frozen=True)
class LandmarkHeatMaps(_Landmarks):
    """Landmarks from heat maps, trained towards Gaussians around the points.

    With "cross_entropy", a map has the logits of the cells, whose softmax `p` is
    compared with the Gaussian `g` divided by its sum, `−Σ g log p`. With "squared", a
    map is compared with the Gaussian itself, `Σ (h − g)²`. The answer is the place of
    the maximum, found between cells (`fpn_jax.ops.heat_maps.peaks`).

    Attributes:
      num_landmarks: Number of points, 1 or more.
      eyes: Numbers of the two landmarks whose distance is the unit of the errors.
      visibility_weight: Weight of the logistic loss of the visibility, 0 or more.
      sigma: Width of the Gaussians, in cells, above 0.
      loss: "cross_entropy" or "squared".

    Raises:
      InputError: The loss is unknown, or a number is out of range.
    """

    sigma: float = 1.5
    loss: str = "cross_entropy"

    reads: ClassVar[frozenset[str]] = frozenset({"heat_maps", "visibility_logits"})

    def __post_init__(self):
        super().__post_init__()
        errors.within("task.sigma", self.sigma, 0, math.inf, open_low=True)
        errors.one_of("task.loss", self.loss, HEAT_MAP_LOSSES)

    def places_of(
        self, predictions: Predictions, image_size: tuple[int, int]
    ) -> jax.Array:
        """Returns the places of the maxima, in pixels."""
        maps = predictions["heat_maps"].astype(jnp.float32)
        if self.loss == "cross_entropy":
            maps = jnp.exp(heat_maps.log_softmax(maps))
        cells, _ = heat_maps.peaks(maps)
        return heat_maps.to_pixels(cells, image_size, maps.shape[1:3])

    def point_loss(
        self, predictions: Predictions, points: jax.Array, image_size: tuple[int, int]
    ) -> jax.Array:
        """Returns the loss of every map."""
        maps = predictions["heat_maps"].astype(jnp.float32)
        cells = heat_maps.to_cells(points, image_size, maps.shape[1:3])
        target = heat_maps.gaussians(cells, maps.shape[1:3], self.sigma)
        if self.loss == "squared":
            return jnp.square(maps - target).sum((1, 2))
        # A point that is outside by many cells has a map of zeros.
        share = target / jnp.maximum(target.sum((1, 2), keepdims=True), TINY)
        return -jnp.sum(share * heat_maps.log_softmax(maps), (1, 2))


@dataclasses.dataclass(frozen=True)
class LandmarkPoints(_Landmarks):
    """Landmarks predicted directly as coordinates in shares of the image.

    Attributes:
      num_landmarks: Number of points, 1 or more.
      eyes: Numbers of the two landmarks whose distance is the unit of the errors.
      visibility_weight: Weight of the logistic loss of the visibility, 0 or more.
      loss: Loss of a coordinate, one of `fpn_jax.ops.regression.LOSSES`;
        coordinates are in per cent of the image, so that the corner of "wing" at 10 is
        a tenth of the image.

    Raises:
      InputError: The loss is unknown, or a number is out of range.
    """

    loss: str = "wing"

    reads: ClassVar[frozenset[str]] = frozenset({"points", "visibility_logits"})

    def __post_init__(self):
        super().__post_init__()
        name = "task.loss"
        errors.one_of(name, self.loss, regression.LOSSES)

    def places_of(
        self, predictions: Predictions, image_size: tuple[int, int]
    ) -> jax.Array:
        """Returns the predicted places, in pixels."""
        return predictions["points"].astype(jnp.float32) * _xy(image_size)

    def point_loss(
        self, predictions: Predictions, points: jax.Array, image_size: tuple[int, int]
    ) -> jax.Array:
        """Returns the loss of both coordinates of every point, in per cent."""
        loss = regression.LOSSES[self.loss]
        target = points / _xy(image_size)
        return loss(100 * (predictions["points"] - target)).sum(-1)


def _xy(image_size: tuple[int, int]) -> jax.Array:
    """Returns `(width, height)`, which scales `(x, y)`."""
    return jnp.array(image_size[::-1], jnp.float32)
