"""Exact metrics of class maps: counts of pixels, divided at the end.

`counts` gives the counts of every image. Their sums over a split are integers, so they
are the same for any number of devices.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.metrics.sums import Metric


def counts(
    predicted: jax.Array, truth: jax.Array, num_classes: int, counted: jax.Array
) -> dict[str, jax.Array]:
    """Returns the pixels of each class in each image, int32 `[B, num_classes]` each.

    Args:
      predicted: Class of every pixel, int `[B, H, W]`, 0 to `num_classes - 1`.
      truth: True class of every pixel, int `[B, H, W]`.
      num_classes: Number of classes.
      counted: Whether a pixel counts, bool `[B, H, W]`.

    Returns:
      `intersection`: pixels of the class that are predicted as it; `predicted` and
      `truth`: pixels predicted as the class, and pixels of the class.
    """

    def per_class(classes, where):
        classes = jnp.where(where, classes, num_classes).astype(jnp.int32)
        rows = jnp.arange(len(classes))[:, None, None]
        zeros = jnp.zeros((len(classes), num_classes), jnp.int32)
        # A class outside of the range is dropped.
        return zeros.at[rows, classes].add(1, mode="drop")

    return {
        "intersection": per_class(truth, counted & (predicted == truth)),
        "predicted": per_class(predicted, counted),
        "truth": per_class(truth, counted),
    }


def overlap(
    intersection: jax.Array, predicted: jax.Array, truth: jax.Array
) -> jax.Array:
    """Returns the IoU of counts, `I / (P + T − I)`; 1 where nothing is there or found.

    Args:
      intersection: `I`, of any shape.
      predicted: `P`.
      truth: `T`.
    """
    union = predicted + truth - intersection
    safe = jnp.where(union > 0, union, 1)
    return jnp.where(union > 0, intersection / safe, 1.0).astype(jnp.float32)


def boundary(region: jax.Array, width: int) -> jax.Array:
    """Returns the cells of a region that are within `width` cells of its outside.

    "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", arXiv
    2103.16562: the region less its erosion by a square of `2 · width + 1` cells. What
    lies outside of the image is outside of the region.

    Args:
      region: bool `[B, H, W]`.
      width: Cells, 1 or more.

    Returns:
      bool `[B, H, W]`.
    """
    inside = region.astype(jnp.float32)
    for axis in (1, 2):
        window = [1, 1, 1]
        window[axis] = 2 * width + 1
        padding = [(0, 0)] * 3
        padding[axis] = (width, width)
        padded = jnp.pad(inside, padding)
        inside = jax.lax.reduce_window(
            padded, jnp.inf, jax.lax.min, window, (1, 1, 1), "valid"
        )
    return region & (inside < 1)


class Regions(Metric):
    """Counts of pixels by class, summed over a split.

    Attributes:
      intersection: Pixels of each class that are predicted as it, `[C]`.
      predicted: Pixels predicted as each class, `[C]`.
      truth: Pixels of each class, `[C]`.
    """

    intersection: jax.Array
    predicted: jax.Array
    truth: jax.Array

    @classmethod
    def of(cls, counts: dict[str, jax.Array], weight: jax.Array) -> "Regions":
        """Returns the sums over the images of a batch.

        Args:
          counts: The result of `counts`.
          weight: An image of weight 0 does not count, `[B]`.
        """
        real = (weight > 0)[:, None]
        return cls(**{k: jnp.where(real, v, 0).sum(0) for k, v in counts.items()})

    def ious(self) -> np.ndarray:
        """Returns the IoU of each class, `[C]`; NaN where both lack it."""
        union = self.predicted + self.truth - self.intersection
        return _ratio(self.intersection, union)

    def compute(self) -> list[float]:
        """Returns the IoU of each class."""
        return self.ious().tolist()


class MeanIoU(Regions):
    """The mean IoU over the classes that are in the truth or in the prediction."""

    def compute(self) -> float:
        """Returns the mean; NaN if no pixel counts."""
        return _mean(self.ious())


class MeanDice(Regions):
    """The mean of `2I / (P + T)` over the classes in the truth or in the prediction."""

    def compute(self) -> float:
        """Returns the mean; NaN if no pixel counts."""
        return _mean(_ratio(2 * self.intersection, self.predicted + self.truth))


class RegionIoU(Regions):
    """The IoU of one region over the whole split."""

    def compute(self) -> float:
        """Returns the IoU; 1 if the region is neither there nor found anywhere."""
        value = float(self.ious()[0])
        return 1.0 if np.isnan(value) else value


def _ratio(numerator, denominator) -> np.ndarray:
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    nothing = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
