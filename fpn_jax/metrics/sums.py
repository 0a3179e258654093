"""Exact metrics: pytrees of sums and counts that merge and divide at the end.

A metric of a batch is made on the device by its `of`, summed over devices as a pytree,
merged over steps on the host in float64 by `merge`, and read by `compute`. So the value
of a split does not depend on how it was cut into batches, devices or processes.

Values and labels may have any shape `[B, …]`: one an image, one a pixel. Weights are
`[B]`, or have the shape of the values.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


def _spread(weight: jax.Array, values: jax.Array) -> jax.Array:
    """Returns weights `[B]` as weights of the shape of `values`, `[B, …]`."""
    trailing = range(weight.ndim, values.ndim)
    return jnp.broadcast_to(jnp.expand_dims(weight, trailing), values.shape)


class Metric(flax.struct.PyTreeNode):
    """Sums that add: every leaf of one metric is a sum over examples."""

    def merge(self, other: "Metric") -> "Metric":
        """Returns the metric of both sets of examples together."""
        return jax.tree.map(lambda a, b: a + b, self, other)

    def on_host(self) -> "Metric":
        """Returns the same metric with float64 NumPy leaves, where counts are exact."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)


class Mean(Metric):
    """The weighted mean `Σ w·x / Σ w`; NaN over no examples.

    Attributes:
      total: `Σ w·x`, `[]`.
      weight: `Σ w`, `[]`.
    """

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weight: jax.Array) -> "Mean":
        """Returns the weighted mean of values.

        A value of weight 0 does not count, even where it is not finite.

        Args:
          values: `[B, …]`.
          weight: `[B]`, or the shape of `values`.
        """
        weight = _spread(weight, values)
        counted = jnp.where(weight > 0, values, 0)
        return cls(total=jnp.sum(counted * weight), weight=jnp.sum(weight))

    def compute(self) -> float:
        """Returns the mean."""
        total, weight = float(self.total), float(self.weight)
        return total / weight if weight else float("nan")


class Accuracy(Mean):
    """The share of labels that are predicted."""

    @classmethod
    def of(
        cls, predicted: jax.Array, label: jax.Array, weight: jax.Array
    ) -> "Accuracy":
        """Returns the accuracy of predicted classes.

        Args:
          predicted: Class, int `[B, …]`.
          label: Class, int, the shape of `predicted`.
          weight: `[B]`, or the shape of `predicted`.
        """
        return super().of((predicted == label).astype(jnp.float32), weight)


class Confusion(Metric):
    """Counts `[C, C]`: row = label, column = prediction.

    Attributes:
      counts: float32 `[C, C]` on the device.
    """

    counts: jax.Array

    @classmethod
    def of(
        cls,
        predicted: jax.Array,
        label: jax.Array,
        weight: jax.Array,
        num_classes: int,
    ) -> "Confusion":
        """Returns the confusion of predicted classes.

        Args:
          predicted: Class, int `[B, …]`, 0 to `num_classes - 1`.
          label: Class, int, the shape of `predicted`; a label outside the classes,
            such as a pixel to ignore, needs weight 0.
          weight: `[B]`, or the shape of `predicted`.
          num_classes: `C`.
        """
        weight = _spread(weight, predicted)
        # A label outside the classes would count in another cell.
        label = jnp.where(weight > 0, label, 0).astype(jnp.int32)
        cell = label * num_classes + predicted
        counts = jnp.zeros(num_classes**2, jnp.float32).at[cell].add(weight)
        return cls(counts=counts.reshape(num_classes, num_classes))

    def compute(self) -> list[list[int]]:
        """Returns the counts as rows of integers."""
        return np.asarray(self.counts, np.int64).tolist()


class Calibration(Metric):
    """Expected calibration error over equal-width bins of the top confidence.

    `ECE = Σ_b n_b/N · |accuracy_b − confidence_b|`, "On Calibration of Modern Neural
    Networks", arXiv 1706.04599, equation 3.

    Attributes:
      weight: Sum of the weights in each bin, `[bins]`.
      right: Weighted number of right predictions in each bin, `[bins]`.
      confidence: Weighted sum of the confidences in each bin, `[bins]`.
    """

    weight: jax.Array
    right: jax.Array
    confidence: jax.Array

    @classmethod
    def of(
        cls,
        confidence: jax.Array,
        correct: jax.Array,
        weight: jax.Array,
        bins: int = 15,
    ) -> "Calibration":
        """Returns the calibration of predictions.

        Args:
          confidence: Probability of the predicted class, `[B, …]`, 0 to 1.
          correct: Whether that class is the label, bool, the shape of `confidence`.
          weight: `[B]`, or the shape of `confidence`.
          bins: Number of bins of equal width.
        """
        weight = _spread(weight, confidence)
        right = correct.astype(jnp.float32)
        # Bins are (lower, upper]: a confidence of exactly 1 belongs to the last one.
        index = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)

        def per_bin(values):
            counted = jnp.where(weight > 0, values * weight, 0)
            return jnp.zeros(bins, jnp.float32).at[index].add(counted)

        return cls(
            weight=per_bin(jnp.ones_like(confidence)),
            right=per_bin(right),
            confidence=per_bin(confidence),
        )

    def compute(self) -> float:
        """Returns the expected calibration error, 0 to 1; NaN over no examples."""
        total = float(np.sum(self.weight))
        gaps = np.abs(np.asarray(self.right) - np.asarray(self.confidence))
        return float(np.sum(gaps)) / total if total else float("nan")
