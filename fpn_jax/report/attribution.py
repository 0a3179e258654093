"""Class activation maps: where on each level of the pyramid the evidence is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def heat_maps(
    features: Callable[[Any, jax.Array], dict[int, jax.Array]],
    evidence: Callable[[Any, dict[int, jax.Array]], jax.Array],
    variables: Any,
    images: jax.Array,
) -> dict[int, jax.Array]:
    """Returns one class activation map per level of the pyramid.

    `M_l[y, x] = relu(Σ_c P_l[y, x, c] · ∂ score / ∂ P_l[y, x, c])`, divided by its
    maximum over the level: "Use HiResCAM instead of Grad-CAM for faithful explanations
    of convolutional neural networks" (arXiv 2011.08891).

    One form serves both kinds of head. Behind an average pool the gradient is the same
    at every cell, so the map is CAM (arXiv 1512.04150) and equals that of Grad-CAM
    (arXiv 1610.02391). Behind a flatten the weights differ from cell to cell;
    Grad-CAM averages them over the cells, where they cancel, while the product here
    stays exact: for a head that is linear in the pyramid, the sums over the channels,
    before the ReLU, add up to the score less its bias.

    Differs from the paper: there are several maps, one per level. Each is scaled by its
    own maximum, because a fine level spreads the same evidence over more cells and
    would look empty beside a coarse one; so compare cells of a level, not levels.

    Args:
      features: Takes `(variables, images)` to the pyramid that the head reads,
        `{level: [B, h, w, C]}`.
      evidence: Takes `(variables, pyramid)` to the score `[B]` to explain, such as the
        logit of a class, one example independent of the others.
      variables: What both functions take first.
      images: `[B, H, W, 3]`, as `features` wants them.

    Returns:
      `{level: float32 [B, h, w]}` in 0 to 1; all 0 where nothing on a level supports
      the score.
    """
    pyramid = features(variables, images)

    def score(pyramid: dict[int, jax.Array]) -> jax.Array:
        return evidence(variables, pyramid).sum()

    return jax.tree.map(_activation_map, pyramid, jax.grad(score)(pyramid))


def _activation_map(activation: jax.Array, gradient: jax.Array) -> jax.Array:
    product = activation.astype(jnp.float32) * gradient.astype(jnp.float32)
    evidence = jax.nn.relu(product.sum(axis=-1))
    peak = evidence.max(axis=(1, 2), keepdims=True)
    return evidence / jnp.where(peak > 0, peak, 1.0)
