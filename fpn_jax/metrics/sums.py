"""Exact metrics: pytrees of sums and counts that merge and divide at the end.

A metric of a batch is made on the device by its `of`, summed over devices as a pytree,
merged over steps on the host in float64 by `merge`, and read by `compute`. So the value
of a split does not depend on how it was cut into batches, devices or processes.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


class Metric(flax.struct.PyTreeNode):
    """Sums that add: every leaf of one metric is a sum over examples."""

    def merge(self, other: "Metric") -> "Metric":
        """Returns the metric of both sets of examples together."""
        return jax.tree.map(lambda a, b: a + b, self, other)

    def on_host(self) -> "Metric":
        """Returns the same metric with float64 NumPy leaves, where counts are exact."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)


class Mean(Metric):
    """The weighted mean `Σ w·x / Σ w`; NaN over no examples."""

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weight: jax.Array) -> "Mean":
        """Returns the mean of `values` `[B]` under `weight` `[B]`.

        An example of weight 0 counts for nothing, even where its value is not finite.
        """
        counted = jnp.where(weight > 0, values, 0)
        return cls(total=jnp.sum(counted * weight), weight=jnp.sum(weight))

    def compute(self) -> float:
        """Returns the mean."""
        total, weight = float(self.total), float(self.weight)
        return total / weight if weight else float("nan")


class Accuracy(Mean):
    """The share of examples whose largest logit is at their label."""

    @classmethod
    def of(cls, logits: jax.Array, label: jax.Array, weight: jax.Array) -> "Accuracy":
        """Returns the accuracy of `logits` `[B, C]` against `label` int `[B]`."""
        right = jnp.argmax(logits, axis=-1) == label
        return super().of(right.astype(jnp.float32), weight)


class Confusion(Metric):
    """Counts `[C, C]`: row = label, column = prediction."""

    counts: jax.Array

    @classmethod
    def of(cls, logits: jax.Array, label: jax.Array, weight: jax.Array) -> "Confusion":
        """Returns the confusion of `logits` `[B, C]` against `label` int `[B]`."""
        classes = logits.shape[-1]
        cell = label * classes + jnp.argmax(logits, axis=-1)
        counts = jnp.zeros(classes * classes, jnp.float32).at[cell].add(weight)
        return cls(counts=counts.reshape(classes, classes))

    def compute(self) -> list[list[int]]:
        """Returns the counts as rows of integers."""
        return np.asarray(self.counts, np.int64).tolist()


class Calibration(Metric):
    """Expected calibration error over equal-width bins of the top confidence.

    `ECE = Σ_b n_b/N · |accuracy_b − confidence_b|`, "On Calibration of Modern Neural
    Networks", arXiv 1706.04599, equation 3.
    """

    weight: jax.Array
    right: jax.Array
    confidence: jax.Array

    @classmethod
    def of(
        cls, logits: jax.Array, label: jax.Array, weight: jax.Array, bins: int = 15
    ) -> "Calibration":
        """Returns the calibration of `logits` `[B, C]` against `label` int `[B]`."""
        probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        confidence = jnp.max(probabilities, axis=-1)
        right = (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
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
