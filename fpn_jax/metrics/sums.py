"""Exact metrics: pytrees of sums and counts, which are divided at the end.

`of` computes a metric of a batch on the device; the pytrees are summed over devices.
`merge` adds the metrics of several batches on the host, in float64, and `compute`
returns the value. The value of a split therefore does not depend on how the split is
divided into batches, devices or processes.

Values and labels may have any shape `[B, …]`, such as one per image or one per pixel.
Weights have the shape `[B]`, or the shape of the values.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


def _spread(weight: jax.Array, values: jax.Array) -> jax.Array:
    """Broadcasts weights `[B]` to the shape of `values`, `[B, …]`."""
    trailing = range(weight.ndim, values.ndim)
    return jnp.broadcast_to(jnp.expand_dims(weight, trailing), values.shape)


class Metric(flax.struct.PyTreeNode):
    """A metric whose leaves are sums over examples."""

    def merge(self, other: "Metric") -> "Metric":
        """Returns the metric over the examples of both metrics.

        Args:
          other: A metric of the same class over other examples.
        """
        return jax.tree.map(lambda a, b: a + b, self, other)

    def on_host(self) -> "Metric":
        """Returns the metric with float64 NumPy leaves, in which counts are exact."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)


class Mean(Metric):
    """The weighted mean `Σ w·x / Σ w`; NaN if there are no examples.

    Attributes:
      total: `Σ w·x`, `[]`.
      weight: `Σ w`, `[]`.
    """

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weight: jax.Array) -> "Mean":
        """Returns the weighted mean of values.

        A value of weight 0 is ignored, even if it is not finite.

        Args:
          values: `[B, …]`.
          weight: 0 or more, `[B]` or the shape of `values`.
        """
        weight = _spread(weight, values)
        counted = jnp.where(weight > 0, values, 0)
        return cls(total=jnp.sum(counted * weight), weight=jnp.sum(weight))

    def compute(self) -> float:
        """Returns the mean."""
        total, weight = float(self.total), float(self.weight)
        return total / weight if weight else float("nan")


class Accuracy(Mean):
    """The fraction of correct predictions."""

    @classmethod
    def of(
        cls, predicted: jax.Array, label: jax.Array, weight: jax.Array
    ) -> "Accuracy":
        """Returns the accuracy of predicted classes.

        Args:
          predicted: Class, int `[B, …]`.
          label: Class, int, the shape of `predicted`.
          weight: 0 or more, `[B]` or the shape of `predicted`.
        """
        return super().of((predicted == label).astype(jnp.float32), weight)


class Confusion(Metric):
    """The confusion matrix `[C, C]`: rows are labels, columns are predictions.

    Attributes:
      counts: Sum of the weights in each cell, float32 `[C, C]`.
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
        """Returns the confusion matrix of predicted classes.

        Args:
          predicted: Class, int `[B, …]`, 0 to `num_classes - 1`.
          label: Class, int, the shape of `predicted`. A label outside the classes, such
            as that of an ignored pixel, must have weight 0.
          weight: 0 or more, `[B]` or the shape of `predicted`.
          num_classes: `C`.
        """
        weight = _spread(weight, predicted)
        # A label outside the classes would be counted in the cell of another label.
        label = jnp.where(weight > 0, label, 0).astype(jnp.int32)
        cell = label * num_classes + predicted
        counts = jnp.zeros(num_classes**2, jnp.float32).at[cell].add(weight)
        return cls(counts=counts.reshape(num_classes, num_classes))

    def compute(self) -> list[list[int]]:
        """Returns the counts as rows of integers."""
        return np.asarray(self.counts, np.int64).tolist()


class Calibration(Metric):
    """Expected calibration error (ECE) over equal-width bins of the confidence.

    `ECE = Σ_b n_b/N · |accuracy_b − confidence_b|`, "On Calibration of Modern Neural
    Networks", arXiv 1706.04599, equation 3.

    Attributes:
      weight: Sum of the weights in each bin, `[bins]`.
      right: Sum of the weights of correct predictions in each bin, `[bins]`.
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
          weight: 0 or more, `[B]` or the shape of `confidence`.
          bins: Number of bins of equal width.
        """
        weight = _spread(weight, confidence)
        right = correct.astype(jnp.float32)
        # Bins are (lower, upper], so a confidence of exactly 1 is in the last bin.
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
        """Returns the expected calibration error, 0 to 1; NaN without examples."""
        total = float(np.sum(self.weight))
        gaps = np.abs(np.asarray(self.right) - np.asarray(self.confidence))
        return float(np.sum(gaps)) / total if total else float("nan")
