"""Freezing, unfreezing and learning rate multipliers of parts."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.errors import InputError
from fpn_jax.train import finetune, optimizer, parallel, state, steps

STEPS = 6


def params():
    rng = np.random.default_rng(0)

    def dense():
        return {"kernel": jnp.float32(rng.normal(0, 0.5, (3, 3)))}

    return {
        "backbone": {"stem": dense(), "stage1": dense(), "stage10": dense()},
        "head": dense(),
    }


def apply(variables, images, *, train, rngs=None, mutable=()):
    del train, rngs
    x, backbone = images, variables["params"]["backbone"]
    for part in ("stem", "stage1", "stage10"):
        x = jnp.tanh(x @ backbone[part]["kernel"])
    out = x @ variables["params"]["head"]["kernel"]
    return (out, {}) if mutable else out


def losses(predictions, batch):
    return {"squared": jnp.sum((predictions - batch["target"]) ** 2, axis=-1)}


def batch_at(number):
    rng = np.random.default_rng(number)
    return {
        "image": np.float32(rng.normal(size=(8, 3))),
        "target": np.float32(rng.normal(size=(8, 3))),
        "weight": np.ones(8, np.float32),
    }


def train(freeze, name="adamw", multipliers=None, taken=STEPS):
    """Returns the parameters before the first step and after each one."""
    transformation, _ = optimizer.build(
        name,
        learning_rate=0.1,
        total_steps=100,
        weight_decay=0.1,
        multipliers=multipliers,
    )
    phases = finetune.phases(freeze, 0)
    mapped = {
        phase: parallel.map_train_step(
            steps.make_train_step(
                apply,
                losses,
                transformation,
                frozen=lambda tree, phase=phase: finetune.frozen_mask(phase, tree),
            )
        )
        for phase in phases
    }
    current = state.create(
        lambda rng: {"params": params()}, transformation, seed=0, with_ema=False
    )
    current, trail = parallel.replicate(current), []
    for step in range(taken):
        trail.append(jax.device_get(current.params))
        step_fn = mapped[finetune.phase_at(phases, step)]
        current, metrics = step_fn(current, parallel.shard(batch_at(step)))
        jax.block_until_ready(metrics)
    return [*trail, jax.device_get(current.params)]


def changed(before, after):
    """Returns the parts that changed."""
    flat = jax.tree_util.tree_leaves_with_path(before)
    return {
        finetune.name_of(path).removesuffix("/kernel")
        for (path, old), new in zip(flat, jax.tree.leaves(after), strict=True)
        if (old != new).any()
    }


EVERY = {"backbone/stem", "backbone/stage1", "backbone/stage10", "head"}


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_frozen_parts_do_not_change_until_their_step(name):
    freeze = {"backbone": 4, "backbone/stem": math.inf, "backbone/stage10": 2}
    trail = train(freeze, name)
    after = [changed(*pair) for pair in itertools.pairwise(trail)]
    late = {"backbone/stage10", "head"}
    assert after == [{"head"}] * 2 + [late] * 2 + [late | {"backbone/stage1"}] * 2


def test_without_freezing_all_parts_train():
    trail = train({})
    assert changed(trail[0], trail[1]) == EVERY


def test_freezing_a_part_does_not_change_the_gradient_of_others():
    """Compares the first step of the head with and without a frozen backbone."""
    alone, together = train({"backbone": math.inf}, "sgd"), train({}, "sgd")
    np.testing.assert_allclose(
        alone[1]["head"]["kernel"], together[1]["head"]["kernel"], rtol=1e-5
    )


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_a_multiplier_scales_the_first_step(name):
    plain = train({}, name, taken=1)
    scaled = train({}, name, {"backbone": 0.5, "backbone/stage1": 0.25}, taken=1)

    def moved(trail, *part):
        before, after = trail
        for key in part:
            before, after = before[key], after[key]
        return after["kernel"] - before["kernel"]

    for part, factor in (
        (("backbone", "stem"), 0.5),
        (("backbone", "stage1"), 0.25),
        (("backbone", "stage10"), 0.5),
        (("head",), 1.0),
    ):
        np.testing.assert_allclose(
            moved(scaled, *part), factor * moved(plain, *part), rtol=1e-3, atol=1e-7
        )


def test_phases_begin_at_every_change_of_freezing():
    found = finetune.phases({"a": 5, "b": math.inf, "c": 0}, 3)
    assert [(p.start_step, p.frozen_norm) for p in found] == [
        (0, True),
        (3, False),
        (5, False),
    ]
    assert [finetune.phase_at(found, step).start_step for step in (0, 2, 3, 9)] == [
        *(0, 0, 3, 5)
    ]
    assert [p.frozen("a/x") for p in found] == [True, True, False]
    assert [p.frozen("b/x") for p in found] == [True, True, True]
    assert [p.frozen("c/x") for p in found] == [False, False, False]
    assert [p.frozen_norm for p in finetune.phases({}, -1)] == [True]
    assert [p.frozen_norm for p in finetune.phases({}, 0)] == [False]


@pytest.mark.parametrize(
    ("entries", "bare", "says"),
    [
        (("backbone=fast",), None, "'backbone=fast'; an entry is NAME=NUMBER"),
        (("backbone",), None, "'backbone'; an entry is NAME=NUMBER"),
        (("backbone=-1",), math.inf, "'backbone=-1'; an entry is NAME or NAME=STEP"),
        (("=3",), math.inf, "'=3'"),
        (("backbone=nan",), None, "'backbone=nan'"),
        (("head=1", "head=2"), None, "'head' twice"),
    ],
)
def test_invalid_entries_are_refused(entries, bare, says):
    with pytest.raises(InputError, match=f"the key has {says}"):
        finetune.parse("the key", entries, bare=bare)


def test_a_single_entry_needs_no_tuple():
    assert finetune.parse("the key", "backbone=0.1", bare=None) == {"backbone": 0.1}


def test_an_unknown_part_is_refused():
    finetune.check_parts("the key", {"backbone/stem": 1, "head": 1}, params())
    with pytest.raises(InputError, match="'backbone/stem1' is unknown; did you mean"):
        finetune.check_parts("the key", {"backbone/stem1": 1}, params())


def test_frozen_norm_steps_below_minus_one_are_refused():
    with pytest.raises(InputError, match="frozen_norm_steps is -2"):
        finetune.phases({}, -2)


def test_scaling_keeps_the_structure_of_the_tree():
    updates, _ = finetune.scale_parts({"head": 2.0}).update(
        params(), optax.EmptyState(), params()
    )
    assert jax.tree.structure(updates) == jax.tree.structure(params())
