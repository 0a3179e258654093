"""Optimizers and the learning-rate schedule."""

import math
from collections.abc import Mapping

import jax
import optax

from fpn_jax import errors
from fpn_jax.train import finetune

OPTIMIZERS = ("sgd", "adamw")


def decay_mask(params):
    """Returns True for every leaf that decays: kernels, never biases or norm scales."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def warmup_cosine(
    learning_rate: float, total_steps: int, warmup_steps: int
) -> optax.Schedule:
    """Returns step → learning rate: linear from 0, then half a cosine down to 0.

    "SGDR: Stochastic Gradient Descent with Warm Restarts", arXiv 1608.03983, without
    restarts; warm-up as in "Accurate, Large Minibatch SGD", arXiv 1706.02677.

    Raises:
      InputError: The warm-up is negative, or as long as the run or longer.
    """
    errors.at_least("optimizer.warmup_steps", warmup_steps, 0, whole=True)
    if warmup_steps >= total_steps:
        raise errors.InputError(
            f"optimizer.warmup_steps is {warmup_steps}; it must be smaller than the "
            f"{total_steps} steps of this run"
        )
    return optax.warmup_cosine_decay_schedule(
        # A first step at a rate of exactly 0 would train nothing.
        init_value=learning_rate / (warmup_steps + 1),
        peak_value=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
    )


def build(
    name: str,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    clip_norm: float = 0.0,
    multipliers: Mapping[str, float] | None = None,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns an optimizer and its learning-rate schedule.

    Args:
      name: `"sgd"` (decay is added to the gradient) or `"adamw"` (decoupled decay,
        "Decoupled Weight Decay Regularization", arXiv 1711.05101; β₂ = 0.999).
      learning_rate: Peak of the schedule, above 0.
      total_steps: Length of the run, in optimizer steps.
      warmup_steps: Steps of linear warm-up.
      weight_decay: Decay of kernels, 0 or more; norms and biases never decay.
      momentum: Heavy-ball factor of SGD, β₁ of AdamW; in `[0, 1)`.
      nesterov: Whether the momentum looks ahead.
      clip_norm: Largest global norm of the gradient; 0 does not clip.
      multipliers: Part of the model → factor of its learning rate.

    Raises:
      InputError: An unknown name, or a value out of its range.
    """
    errors.one_of("optimizer", name, OPTIMIZERS)
    errors.within("optimizer.learning_rate", learning_rate, 0, math.inf, open_low=True)
    errors.at_least("optimizer.weight_decay", weight_decay, 0)
    errors.within("optimizer.momentum", momentum, 0, 1, open_high=True)
    errors.at_least("optimizer.clip_norm", clip_norm, 0)
    schedule = warmup_cosine(learning_rate, total_steps, warmup_steps)
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if name == "sgd":
        decay = [optax.add_decayed_weights(weight_decay, mask=decay_mask)]
        update = [*decay, optax.sgd(schedule, momentum=momentum, nesterov=nesterov)]
    else:
        update = [
            optax.adamw(
                schedule,
                b1=momentum,
                weight_decay=weight_decay,
                mask=decay_mask,
                nesterov=nesterov,
            )
        ]
    scale = [finetune.scale_parts(multipliers)] if multipliers else []
    return optax.chain(*clip, *update, *scale), schedule
