"""The train and evaluation steps, written for one replica.

Both run inside the named axis `AXIS` of `train/parallel.py`. Only this module weights
examples, sums over devices and divides: the loss of a step is `Σ w·l / Σ w` over the
global batch, so the weights may differ between replicas.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fpn_jax.metrics.sums import Mean, Metric
from fpn_jax.train.state import TrainState, Variables

AXIS = "data"
"""Name of the mapped axis, whose positions are the replicas."""

Batch = dict[str, jax.Array]
Predictions = Any
Apply = Callable[..., Any]
"""Flax's `Module.apply`: variables, images, `train`, `rngs`, `mutable`."""
Mix = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""Random key and float images → mixed images, indices of the partners, own weights."""


def make_train_step(
    apply: Apply,
    losses: Callable[[Predictions, Batch], dict[str, jax.Array]],
    optimizer: optax.GradientTransformation,
    *,
    mix: Mix | None = None,
    accumulation_steps: int = 1,
    ema_decay: float = 0.0,
    frozen: Callable[[Any], Any] | None = None,
    skip_nonfinite: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """Returns the train step of one replica, `step(state, batch) -> (state, metrics)`.

    Args:
      apply: The model.
      losses: Predictions and batch → every loss of every example, name → `[B]`. The
        sum of the losses is trained.
      optimizer: Takes the gradient of the global mean loss.
      mix: Mixup or CutMix; None for neither. The loss of a mixed image is
        `λ·l(own) + (1 − λ)·l(partner)`.
      accumulation_steps: Number of slices of the replica's batch, 1 or more; it must
        divide the batch. The slices pass through the model one after the other, with
        the same gradient, except that BatchNorm sees one slice at a time.
      ema_decay: Decay of the moving average of the variables, in `[0, 1)`; 0 is off.
      frozen: Parameters → True for every leaf that does not train. Its gradient is not
        computed and is no part of the gradient norm. None freezes nothing.
      skip_nonfinite: Whether a step with a non-finite loss or gradient changes nothing
        but the step number.
    """

    def select(leaves, frozen_leaf):
        """Applies `frozen_leaf` to the frozen leaves."""
        if frozen is None:
            return leaves
        mask = frozen(leaves)
        return jax.tree.map(lambda x, off: frozen_leaf(x) if off else x, leaves, mask)

    sum_of = _loss_sum(apply, losses, mix)
    gradient_of = jax.value_and_grad(
        lambda params, *rest: sum_of(select(params, jax.lax.stop_gradient), *rest),
        has_aux=True,
    )
    if accumulation_steps > 1:
        gradient_of = _accumulated(gradient_of, accumulation_steps)

    def step(state: TrainState, batch: Batch):
        rng = jax.random.fold_in(state.rng, state.step)
        rng = jax.random.fold_in(rng, jax.lax.axis_index(AXIS))
        before = state
        (total, (batch_stats, parts)), gradient = gradient_of(
            state.params, state.batch_stats, batch, rng
        )
        weight = jnp.sum(batch["weight"])
        mean, gradient, parts = _over_replicas(
            (Mean(total=total, weight=weight), gradient, parts)
        )
        gradient = jax.tree.map(lambda leaf: leaf / mean.weight, gradient)
        # Pass zeros for frozen parameters, so that they do not decay.
        decaying = select(state.params, jnp.zeros_like)
        updates, opt_state = optimizer.update(gradient, state.opt_state, decaying)
        updates = select(updates, jnp.zeros_like)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        if state.ema is not None:
            ema = moving_average(state.ema, state.variables, state.step, ema_decay)
            state = state.replace(ema=ema)
        norm = optax.tree.norm(gradient)
        if skip_nonfinite:
            finite = jnp.isfinite(mean.total) & jnp.isfinite(norm)
            kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), state, before)
            state = kept.replace(step=state.step)
        each = {name: Mean(part, mean.weight) for name, part in parts.items()}
        return state, {"loss": mean, "gradient_norm": norm, "losses": each}

    return step


def _over_replicas(tree: Any) -> Any:
    """Returns the sum over replicas."""
    # With one replica, psum would still copy the tree.
    return tree if jax.lax.axis_size(AXIS) == 1 else jax.lax.psum(tree, AXIS)


def _loss_sum(apply: Apply, losses: Callable, mix: Mix | None) -> Callable:
    """Returns a function: the weighted sum of all losses over a replica's batch.

    The function also returns the new statistics, and the weighted sum of each loss if
    there are several losses.
    """

    def loss_sum(params, batch_stats, batch, rng):
        dropout_rng, mix_rng = jax.random.split(rng)
        batch = _without_padding(batch)
        images, partners = batch["image"], None
        if mix is not None:
            images, partners, own = mix(mix_rng, images.astype(jnp.float32))
        predictions, updated = apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            rngs={"dropout": dropout_rng},
            mutable=["batch_stats"],
        )
        each, weight = losses(predictions, batch), batch["weight"]
        if partners is not None:
            partner_batch = jax.tree.map(lambda leaf: leaf[partners], batch)
            partner_losses = losses(predictions, partner_batch)
            each = {k: own * each[k] + (1 - own) * partner_losses[k] for k in each}
        per_example = functools.reduce(operator.add, each.values())
        parts = {k: jnp.sum(each[k] * weight) for k in each} if len(each) > 1 else {}
        statistics = updated.get("batch_stats", {})
        return jnp.sum(per_example * weight), (statistics, parts)

    return loss_sum


def _without_padding(batch: Batch) -> Batch:
    """Returns the batch with zeros in every example of weight 0."""
    # Padding may contain NaN, and 0 · NaN is NaN: in the loss, and in the gradient even
    # if the loss itself is masked.
    real = batch["weight"] > 0
    return jax.tree.map(
        lambda leaf: jnp.where(jnp.expand_dims(real, range(1, leaf.ndim)), leaf, 0),
        batch,
    )


def _accumulated(gradient_of: Callable, accumulation_steps: int) -> Callable:
    """Returns a function: the same sum and gradient, computed slice by slice."""

    def accumulate(params, batch_stats, batch, rng):
        slices = jax.tree.map(
            lambda leaf: leaf.reshape(accumulation_steps, -1, *leaf.shape[1:]), batch
        )

        def add(carry, inputs):
            total, batch_stats, gradient = carry
            number, batch = inputs
            (more, (batch_stats, parts)), more_gradient = gradient_of(
                params, batch_stats, batch, jax.random.fold_in(rng, number)
            )
            gradient = jax.tree.map(jnp.add, gradient, more_gradient)
            return (total + more, batch_stats, gradient), parts

        zero = (jnp.zeros(()), batch_stats, jax.tree.map(jnp.zeros_like, params))
        numbers = jnp.arange(accumulation_steps)
        (total, batch_stats, gradient), parts = jax.lax.scan(
            add, zero, (numbers, slices)
        )
        parts = jax.tree.map(lambda part: jnp.sum(part, axis=0), parts)
        return (total, (batch_stats, parts)), gradient

    return accumulate


def moving_average(
    average: Variables, new: Variables, step: jax.Array, decay: float
) -> Variables:
    """Returns `d·average + (1 − d)·new` with `d = min(decay, (1 + t) / (10 + t))`.

    The factor `(1 + t) / (10 + t)` makes the average follow the first steps quickly.
    Without it, the random start would dominate for about `1 / (1 − decay)` steps.

    Args:
      average: The average so far.
      new: The variables after step `step`.
      step: Optimizer steps taken, `t`; 1 or more.
      decay: Upper bound of `d`, in `[0, 1)`.
    """
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    # This form is exact where `average == new`.
    return jax.tree.map(lambda a, b: a + (b - a) * (1 - decay), average, new)


def make_eval_step(
    apply: Apply,
    metrics: Callable[[Predictions, Batch], dict[str, Metric]],
    keep: Callable[[Predictions, Batch], dict[str, jax.Array]],
) -> Callable[[Variables, Batch], tuple[dict[str, Metric], dict[str, jax.Array]]]:
    """Returns the evaluation step of one replica.

    The step is `step(variables, batch) -> (metrics of the global batch, kept rows)`.

    Args:
      apply: The model.
      metrics: Predictions and batch → metrics as sums, in which padding has weight 0.
      keep: Predictions and batch → arrays to keep of every example, name → `[B, …]`;
        may be `{}`. Other predictions stay on the device and are freed with the step.
    """

    def step(variables: Variables, batch: Batch):
        predictions = apply(variables, batch["image"], train=False)
        rows = keep(predictions, batch)
        return _over_replicas(metrics(predictions, batch)), rows

    return step
