"""Losses: one value an example; the train step weighs and averages them."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    """Returns the softmax cross-entropy of every example, in nats.

    `−Σ_c q_c log p_c` with `q = (1 − ε)·onehot(label) + ε/C`: label smoothing as in
    "Rethinking the Inception Architecture for Computer Vision", arXiv 1512.00567,
    section 7. The whole loss of an example is scaled by the weight of its label, which
    is the mean loss of a data set with `w` copies of each image of that class. Differs
    from `torch.nn.CrossEntropyLoss` where both are given: PyTorch scales every smoothed
    term by the weight of its own class, `−Σ_c w_c q_c log p_c`.

    Args:
      logits: `[B, C]`, any float dtype; the sum is taken in float32.
      label: int `[B]`, each in `0 … C − 1`.
      label_smoothing: ε, in `[0, 1)`.
      class_weights: `[C]`, each at least 0; None weighs all classes equally.

    Returns:
      float32 `[B]`.

    Example:
      >>> float(cross_entropy(jnp.zeros((1, 2)), jnp.array([1]))[0])  # ln 2
      0.6931471824645996
    """
    classes = logits.shape[-1]
    target = optax.smooth_labels(jax.nn.one_hot(label, classes), label_smoothing)
    loss = optax.softmax_cross_entropy(logits.astype(jnp.float32), target)
    if class_weights is not None:
        loss = loss * jnp.asarray(class_weights, jnp.float32)[label]
    return loss
