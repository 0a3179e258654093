"""The state of a training run."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Variables = dict[str, Any]
"""The variables of a Flax model, `{"params": …, "batch_stats": …}`."""


class TrainState(flax.struct.PyTreeNode):
    """The state of a run, as a pytree that is replicated over devices.

    Attributes:
      step: int32 `[]`, optimizer steps taken.
      params: Trained parameters.
      batch_stats: Running statistics of norm layers; `{}` if there are none.
      opt_state: State of the optimizer.
      ema: Exponential moving average of the variables, or None if it is off.
      rng: Typed random key, the same in the whole run. Every step folds its number into
        the key.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Variables | None
    rng: jax.Array

    @property
    def variables(self) -> Variables:
        """The variables that the next train step starts from."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self) -> Variables:
        """The variables to evaluate and export: the moving average if there is one."""
        return self.variables if self.ema is None else self.ema


def create(
    init: Callable[[jax.Array], Variables],
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    with_ema: bool,
) -> TrainState:
    """Returns the state before the first step; works under jit and eval_shape.

    Args:
      init: Random key → variables.
      optimizer: Creates the first state of the optimizer.
      seed: Seed of all random numbers of the run.
      with_ema: Whether the state has a moving average.
    """
    init_rng, rng = jax.random.split(jax.random.key(seed))
    variables = init(init_rng)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    kept = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        # Copy, because the same buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, kept) if with_ema else None,
        rng=rng,
    )


def with_variables(state: TrainState, loaded: Variables) -> TrainState:
    """Returns the state with some variables replaced, also in the moving average.

    Args:
      state: The state before the first step.
      loaded: Variables of complete parts of the model, such as
        `{"params": {"backbone": …}}`.

    Raises:
      ValueError: A part has another structure or shape than in the state.
    """
    kept = dict(state.variables)
    for collection, parts in loaded.items():
        for part, new in parts.items():
            old = kept[collection].get(part)
            shapes = jax.tree.map(jnp.shape, (old, new))
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"the {collection} of {part} have other names or shapes"
                )
        kept[collection] = {**kept[collection], **parts}
    # Copy, because the same buffer cannot be donated twice.
    kept = jax.tree.map(jnp.array, kept)
    return state.replace(
        params=kept["params"],
        batch_stats=kept["batch_stats"],
        ema=None if state.ema is None else jax.tree.map(jnp.copy, kept),
    )
