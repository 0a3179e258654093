"""The state that a training run carries from step to step."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Variables = dict[str, Any]
"""What a model's `apply` takes: `{"params": …, "batch_stats": …}`."""


class TrainState(flax.struct.PyTreeNode):
    """A plain pytree, replicated over devices, never stacked.

    Attributes:
      step: int32 `[]`, optimizer steps taken.
      params: Trained parameters.
      batch_stats: Running statistics of norm layers; `{}` where there are none.
      opt_state: The optimizer's own state.
      ema: Exponential moving average of the variables, or None where it is off.
      rng: Typed key; every step folds its own number into it, and never replaces it.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Variables | None
    rng: jax.Array

    @property
    def variables(self) -> Variables:
        """What the next training step starts from."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self) -> Variables:
        """What is evaluated and shipped: the moving average where there is one."""
        return self.variables if self.ema is None else self.ema


def create(
    init: Callable[[jax.Array], Variables],
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    with_ema: bool,
) -> TrainState:
    """Returns the state before the first step; jit- and eval_shape-friendly.

    Args:
      init: Random key → variables.
      optimizer: Gives the optimizer's first state.
      seed: The run's one seed.
      with_ema: Whether to carry a moving average.
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
        # A copy: the same buffer twice in one donated state would be donated twice.
        ema=jax.tree.map(jnp.copy, kept) if with_ema else None,
        rng=rng,
    )


def with_variables(state: TrainState, loaded: Variables) -> TrainState:
    """Returns the state with some of its variables replaced, moving average included.

    Args:
      state: Before the first step.
      loaded: `{"params": …, "batch_stats": …}` of whole parts of the model, as
        `{"params": {"backbone": …}}`.

    Raises:
      ValueError: A part has another structure or shape than the state's.
    """
    kept = dict(state.variables)
    for collection, parts in loaded.items():
        for part, new in parts.items():
            old = kept[collection].get(part)
            shapes = jax.tree.map(jnp.shape, (old, new))
            if shapes[0] != shapes[1]:
                raise ValueError(f"{collection} of {part} are of another model")
        kept[collection] = {**kept[collection], **parts}
    # Copies: the same buffer twice in one donated state would be donated twice.
    kept = jax.tree.map(jnp.array, kept)
    return state.replace(
        params=kept["params"],
        batch_stats=kept["batch_stats"],
        ema=None if state.ema is None else jax.tree.map(jnp.copy, kept),
    )
