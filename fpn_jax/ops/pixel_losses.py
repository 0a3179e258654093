"""Losses of class maps: one value an example, over the pixels that are not ignored.

Every function takes logits `[B, H, W, C]` of any floating type, computes in float32,
and takes the true class of every pixel, int `[B, H, W]`. A pixel whose class is
`ignore` changes neither value nor gradient. An example that has only such pixels has
the loss 0.
"""

import jax
import jax.numpy as jnp
import optax

from fpn_jax.ops import losses

IGNORE = 255
"""Class of a pixel that no loss counts."""

_LEAST = 1e-7
"""Smallest denominator."""


def cross_entropy(
    logits: jax.Array, mask: jax.Array, *, ignore: int = IGNORE
) -> jax.Array:
    """Returns the mean cross-entropy over the pixels of each example, in nats.

    Args:
      logits: `[B, H, W, C]`.
      mask: int `[B, H, W]`, `0 … C − 1`, or `ignore`.
      ignore: Class of the pixels that do not count.

    Returns:
      float32 `[B]`.

    Example:
      >>> logits, mask = jnp.zeros((1, 1, 2, 2)), jnp.array([[[1, 255]]])
      >>> float(cross_entropy(logits, mask)[0])  # ln 2
      0.6931471824645996
    """
    counted = mask != ignore
    label = jnp.where(counted, mask, 0).astype(jnp.int32)
    pixels = losses.cross_entropy(logits, label)
    return _mean(pixels, counted)


def focal(
    logits: jax.Array,
    mask: jax.Array,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    ignore: int = IGNORE,
) -> jax.Array:
    """Returns the focal loss of each example: every class against the rest.

    The mean over pixels and classes of `−α_t (1 − p_t)^γ log p_t` with
    `p = σ(logit_c)`, "Focal Loss for Dense Object Detection", arXiv 1708.02002. Equal
    to `FocalLoss("multiclass")` of segmentation_models.pytorch for a batch of one.

    Args:
      logits: `[B, H, W, C]`.
      mask: int `[B, H, W]`, `0 … C − 1`, or `ignore`.
      gamma: How much easy pixels are weighted down, 0 or more.
      alpha: Weight of the class itself, in [0, 1]; the rest has `1 − α`. None weighs
        both by 1.
      ignore: Class of the pixels that do not count.

    Returns:
      float32 `[B]`.
    """
    counted = mask != ignore
    target = jax.nn.one_hot(mask, logits.shape[-1])
    logits = logits.astype(jnp.float32)
    pixels = optax.sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma)
    return _mean(pixels.mean(-1), counted)


def dice(
    logits: jax.Array,
    mask: jax.Array,
    *,
    smooth: float = 0.0,
    ignore: int = IGNORE,
) -> jax.Array:
    """Returns 1 minus the soft Dice coefficient of each example, averaged over classes.

    `1/C Σ_c (1 − (2 Σ p_c y_c + s) / (Σ p_c + Σ y_c + s))` with the softmax `p` and
    the sums over the pixels, "V-Net", arXiv 1606.04797. A class that the example does
    not show contributes 0. Equal to `DiceLoss("multiclass")` of
    segmentation_models.pytorch for a batch of one.

    Args:
      logits: `[B, H, W, C]`.
      mask: int `[B, H, W]`, `0 … C − 1`, or `ignore`.
      smooth: `s`, 0 or more.
      ignore: Class of the pixels that do not count.

    Returns:
      float32 `[B]`, 0 to 1.
    """
    probability, target = _soft_and_hard(logits, mask, ignore)
    both = jnp.sum(probability * target, (1, 2))
    total = jnp.sum(probability + target, (1, 2))
    score = (2 * both + smooth) / jnp.maximum(total + smooth, _LEAST)
    shown = target.any((1, 2))
    return jnp.where(shown, 1 - score, 0).mean(-1)


def lovasz(logits: jax.Array, mask: jax.Array, *, ignore: int = IGNORE) -> jax.Array:
    """Returns the Lovász softmax loss of each example, over the classes that it shows.

    The convex extension of `1 − IoU`: with the errors `|y_c − p_c|` in decreasing
    order, each is weighted by the growth of the Jaccard loss when its pixel is added,
    "The Lovász-Softmax loss", arXiv 1705.08790. It sorts all pixels once for each
    class. Equal to `LovaszLoss("multiclass", per_image=True)` of
    segmentation_models.pytorch.

    Args:
      logits: `[B, H, W, C]`.
      mask: int `[B, H, W]`, `0 … C − 1`, or `ignore`.
      ignore: Class of the pixels that do not count.

    Returns:
      float32 `[B]`, 0 to 1.
    """
    probability, target = _soft_and_hard(logits, mask, ignore)
    counted = jnp.broadcast_to((mask != ignore)[..., None], target.shape)

    def rows(x):
        """Returns `[B, C, H·W]`."""
        return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], x.shape[-1], -1)

    error, target, counted = map(rows, (jnp.abs(target - probability), target, counted))
    # Pixels that do not count come last, with the error 0, so they weigh nothing.
    key = jnp.where(counted, -jax.lax.stop_gradient(error), 1.0)
    order = jnp.argsort(key, axis=-1)
    error = jnp.take_along_axis(error, order, axis=-1)
    weight = _jaccard_growth(jnp.take_along_axis(target, order, axis=-1))
    shown = target.any(-1)
    of_class = jnp.where(shown, jnp.sum(error * weight, -1), 0)
    return of_class.sum(-1) / jnp.maximum(shown.sum(-1), 1)


def _jaccard_growth(target: jax.Array) -> jax.Array:
    """Returns how much `1 − IoU` grows with each pixel that is added, `[…, N]`."""
    count = target.sum(-1, keepdims=True)
    intersection = count - jnp.cumsum(target, -1)
    union = count + jnp.cumsum(1 - target, -1)
    jaccard = 1 - intersection / jnp.maximum(union, 1)
    return jnp.diff(jaccard, axis=-1, prepend=0)


def _soft_and_hard(
    logits: jax.Array, mask: jax.Array, ignore: int
) -> tuple[jax.Array, jax.Array]:
    """Returns probabilities and one-hot classes, both 0 where a pixel is ignored."""
    counted = (mask != ignore)[..., None]
    probability = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    target = jax.nn.one_hot(mask, logits.shape[-1])
    return jnp.where(counted, probability, 0), jnp.where(counted, target, 0)


def _mean(pixels: jax.Array, counted: jax.Array) -> jax.Array:
    """Returns the mean over the counted pixels of each example; 0 if there is none."""
    total = jnp.where(counted, pixels, 0).sum((1, 2))
    return total / jnp.maximum(counted.sum((1, 2)), 1)


LOSSES = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "dice": dice,
    "lovasz": lovasz,
}
"""Name → loss of class maps with its default arguments."""
