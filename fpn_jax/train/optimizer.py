"""Optimizers and the learning-rate schedule."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import optax

from fpn_jax import errors
from fpn_jax.errors import InputError
from fpn_jax.registry import Registry, Spec
from fpn_jax.train import finetune


def decay_mask(params: Any) -> Any:
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
    if not 0 <= warmup_steps < total_steps:
        raise InputError(
            f"optimizer.warmup_steps is {warmup_steps}; it must be at least 0 and "
            f"smaller than the {total_steps} steps of this run; set "
            "--config.optimizer.warmup_steps"
        )
    return optax.warmup_cosine_decay_schedule(
        # A first step at a learning rate of exactly 0 would train nothing.
        init_value=learning_rate / (warmup_steps + 1),
        peak_value=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
    )


@dataclasses.dataclass(frozen=True)
class Optimizer(abc.ABC):
    """The arguments that all optimizers share; a subclass has the update rule.

    Attributes:
      learning_rate: Peak of the schedule, above 0.
      warmup_steps: Steps of linear warm-up.
      weight_decay: Decay of kernels, 0 or more; norms and biases never decay.
      momentum: Heavy-ball factor of SGD, β₁ of AdamW; in `[0, 1)`.
      nesterov: Whether the momentum looks ahead.
      clip_norm: Largest global norm of the gradient; 0 does not clip.
    """

    learning_rate: float
    warmup_steps: int = 0
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    clip_norm: float = 0.0

    def __post_init__(self):
        rate, infinite = self.learning_rate, math.inf
        errors.within("optimizer.learning_rate", rate, 0, infinite, open_low=True)
        errors.at_least("optimizer.weight_decay", self.weight_decay, 0)
        errors.within("optimizer.momentum", self.momentum, 0, 1, open_high=True)
        errors.at_least("optimizer.clip_norm", self.clip_norm, 0)

    @abc.abstractmethod
    def rule(self, schedule: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns the update rule, weight decay included, as a chain.

        Args:
          schedule: Step → learning rate.
        """

    def transformation(
        self, total_steps: int, multipliers: Mapping[str, float] | None = None
    ) -> tuple[optax.GradientTransformation, optax.Schedule]:
        """Returns the gradient transformation of a run and its learning-rate schedule.

        Args:
          total_steps: Length of the run, in optimizer steps.
          multipliers: Part of the model → factor of its learning rate.

        Raises:
          InputError: The warm-up does not fit into the run.
        """
        schedule = warmup_cosine(self.learning_rate, total_steps, self.warmup_steps)
        clip = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        scale = [finetune.scale_parts(multipliers)] if multipliers else []
        return optax.chain(*clip, *self.rule(schedule), *scale), schedule


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; decay is added to the gradient."""

    def rule(self, schedule: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns weight decay, then the step along the momentum."""
        return [
            optax.add_decayed_weights(self.weight_decay, mask=decay_mask),
            optax.sgd(schedule, momentum=self.momentum, nesterov=self.nesterov),
        ]


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    "Decoupled Weight Decay Regularization", arXiv 1711.05101; β₂ = 0.999.
    """

    def rule(self, schedule: optax.Schedule) -> list[optax.GradientTransformation]:
        """Returns AdamW."""
        return [
            optax.adamw(
                schedule,
                b1=self.momentum,
                weight_decay=self.weight_decay,
                mask=decay_mask,
                nesterov=self.nesterov,
            )
        ]


OPTIMIZERS = {"sgd": SGD, "adamw": AdamW}
"""Name → constructor."""

REGISTRY = Registry("optimizer", OPTIMIZERS, base=Optimizer)
names, accepts = REGISTRY.names, REGISTRY.accepts


def build(
    spec: Spec,
    *,
    total_steps: int,
    multipliers: Mapping[str, float] | None = None,
    **arguments: Any,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns an optimizer's gradient transformation and its learning-rate schedule.

    Args:
      spec: Name of the optimizer, or a dict with `name` and arguments.
      total_steps: Length of the run, in optimizer steps.
      multipliers: Part of the model → factor of its learning rate.
      **arguments: More arguments of the optimizer.

    Raises:
      InputError: An unknown name, or a value out of its range.
    """
    chosen = REGISTRY.build(spec, **arguments)
    return chosen.transformation(total_steps, multipliers)
