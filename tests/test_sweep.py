"""Everything that a table names: gradients, determinism, bfloat16, one compilation.

Backbones that differ by numbers alone (how many blocks, how wide) are of one kind and
have two representatives: the table's first, which is the smallest, is run, and narrow
where it takes a width; the second is traced only. What has another class inside it, or
another switch, is of another kind. `test_backbones.py` holds the shapes of all.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fpn_jax import backbones, heads, necks
from fpn_jax.layers import pooling, upsampling
from fpn_jax.pyramid import Backbone, Head, Neck, is_aligned, level_size

TOLERANCE = 2e-2
"""Of bfloat16 against float32, relative to the largest value of a map."""
BATCH = 2
SIZE = 64
SMALL = {
    "width": 8,
    "width_multiplier": 0.25,
    "combine": "concat",
    "num_classes": 3,
    "dropout": 0.5,
}
"""Arguments of every part that takes them."""


class Upsampled(nn.Module):
    """An upsampling to an odd width, called as every other part is."""

    upsampling: nn.Module

    def __call__(self, x, *, train):
        return self.upsampling(x, (10, 11))


class Case(NamedTuple):
    room: Any
    name: str
    arguments: dict[str, Any]

    def build(self, dtype=jnp.float32):
        accepted = self.room.accepts(self.name)
        given = {key: SMALL[key] for key in SMALL.keys() & accepted} | self.arguments
        if "dtype" in accepted:
            given["dtype"] = dtype
        module = self.room.build(self.name, **given)
        return Upsampled(module) if self.room is upsampling else module

    def inputs(self, module, seed):
        """Returns arrays that bfloat16 holds exactly: their rounding is no error."""
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return rng.normal(size=shape).astype(jnp.bfloat16).astype(np.float32)

        if self.room is backbones:
            return (normal(BATCH, SIZE, SIZE, 3),)
        if self.room is pooling:
            return (normal(BATCH, 6, 6, 4),)
        if self.room is upsampling:
            return (normal(BATCH, 5, 6, 8),)
        return tuple(
            {
                level: normal(BATCH, *level_size((SIZE, SIZE), level + scale), 8)
                for level in (2, 3, 4, 5)
            }
            for scale in range(module.num_scales if self.room is necks else 1)
        )


def kind(name):
    """Returns what variants that differ by numbers alone have in common."""
    constructor = backbones.BACKBONES[name]
    if not isinstance(constructor, functools.partial):
        return constructor
    fixed = constructor.keywords.items()
    return constructor.func, *(
        (key, value) for key, value in fixed if isinstance(value, type | bool | str)
    )


def kinds():
    """Returns the names of every kind, in the table's order."""
    grouped = {}
    for name in backbones.names():
        grouped.setdefault(kind(name), []).append(name)
    return list(grouped.values())


def cases():
    for room, title, names in (
        (backbones, "backbone", [names[0] for names in kinds()]),
        (necks, "neck", necks.names()),
        (heads, "head", heads.names()),
        (pooling, "pool", pooling.names()),
        (upsampling, "upsampling", upsampling.names()),
    ):
        for name in names:
            yield f"{title}-{name}", Case(room, name, {})
    for name in pooling.names():
        if "window" in pooling.accepts(name):
            yield f"window-{name}", Case(pooling, name, {"window": 3, "stride": 2})


OPTIONS = {
    "fpn-ppm": Case(necks, "fpn", {"context": "ppm"}),
    "fpn-aspp": Case(necks, "fpn", {"context": "aspp"}),
    "spp-lip": Case(heads, "spp", {"pool": {"name": "lip", "width": 4}}),
    "covariance-log": Case(pooling, "covariance", {"method": "log"}),
    "covariance-newton_schulz": Case(
        pooling, "covariance", {"method": "newton_schulz"}
    ),
    "resnet18-dilated": Case(backbones, "resnet18", {"output_stride": 8}),
    "resnet18-same": Case(backbones, "resnet18", {"padding": "same", "levels": (3,)}),
    "alexnet-paper": Case(backbones, "alexnet", {"padding": "paper"}),
}
"""Switches that lead through other code."""

CASES = dict(cases()) | OPTIONS
GAINS = {"backbone-mobilenet_v2": 1}
"""Part → variance of what a kernel gives; others keep it through a ReLU behind it: 2.

MobileNetV2's projections have none, and add up: with 2 its maps outgrow the 6 at which
ReLU6 cuts off, where a rounding decides what passes (0.45 of the largest value).
"""
every_part = pytest.mark.parametrize("part", CASES)


def random_variables(abstract, seed, gain):
    """Made by NumPy: compiling the initial values takes longer than the test."""
    rng = np.random.default_rng(seed)

    def value(path, leaf):
        if leaf.ndim > 1:
            fan_in = np.prod(leaf.shape[:-1])
            made = rng.normal(0, np.sqrt(gain / fan_in), leaf.shape)
        elif path[-1].key in ("bias", "mean"):
            made = rng.normal(0, 0.1, leaf.shape)
        else:
            made = rng.uniform(0.8, 1.25, leaf.shape)
        return np.asarray(made, leaf.dtype)

    return jax.tree_util.tree_map_with_path(value, abstract)


def split(variables):
    """Returns parameters, and statistics."""
    return variables.get("params", {}), {
        key: tree for key, tree in variables.items() if key != "params"
    }


def loss(module):
    def of(params, statistics, inputs, key):
        outputs, updated = module.apply(
            {"params": params, **statistics},
            *inputs,
            train=True,
            rngs={"dropout": key},
            mutable=list(statistics),
        )
        return sum(jnp.square(x).mean() for x in jax.tree.leaves(outputs)), updated

    return of


def evaluation(module):
    return jax.jit(
        lambda variables, inputs: module.apply(variables, *inputs, train=False)
    )


def abstract_variables(module, inputs):
    init = functools.partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), *inputs)


def round_to_bfloat16(tree):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)


def abstract_outputs(module, inputs):
    init = functools.partial(module.init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), *inputs)[0]


def parts_of(room):
    return [name for name, case in CASES.items() if case.room is room]


@pytest.mark.parametrize("name", backbones.names())
def test_every_backbone_keeps_its_contract(name):
    backbone = backbones.build(name)
    assert isinstance(backbone, Backbone)
    assert tuple(backbone.channels) == tuple(sorted(backbone.levels))
    assert is_aligned(backbone.cell_offset((SIZE, SIZE)))
    for padding in backbone.paddings:
        assert backbones.build(name, padding=padding).padding == padding


@pytest.mark.parametrize("part", parts_of(necks))
def test_every_neck_keeps_its_contract(part):
    neck = CASES[part].build()
    assert isinstance(neck, Neck)
    inputs = CASES[part].inputs(neck, 0)
    channels = {level: x.shape[-1] for level, x in inputs[0].items()}
    maps = abstract_outputs(neck, inputs)
    assert neck.output_channels(channels) == {
        level: x.shape[-1] for level, x in maps.items()
    }


@pytest.mark.parametrize("part", parts_of(heads))
def test_every_head_returns_the_keys_that_it_declares(part):
    head = CASES[part].build()
    assert isinstance(head, Head)
    assert head.outputs == type(head).outputs
    assert set(abstract_outputs(head, CASES[part].inputs(head, 0))) == head.outputs


def test_a_part_that_lacks_a_member_keeps_no_contract():
    """What the tests above would say of a part without it."""
    lacking = Upsampled(upsampling.build("nearest"))
    for contract in (Backbone, Neck, Head):
        assert not isinstance(lacking, contract)


class Swept(NamedTuple):
    gradients: list[Any]
    outputs: list[Any]
    again: list[Any]
    in_bfloat16: list[Any]
    compilations: tuple[int, ...]


@functools.cache
def sweep(part):
    """Runs a part twice, on other values: training, evaluation, and in bfloat16."""
    module, in_bfloat16 = CASES[part].build(), CASES[part].build(jnp.bfloat16)
    gradient = jax.jit(jax.grad(loss(module), argnums=(0, 2), has_aux=True))
    evaluate, evaluate_in_bfloat16 = evaluation(module), evaluation(in_bfloat16)
    runs = []
    for seed in (0, 1):
        inputs = CASES[part].inputs(module, seed)
        variables = abstract_variables(module, inputs)
        variables = random_variables(variables, seed, GAINS.get(part, 2))
        gradients, _ = gradient(*split(variables), inputs, jax.random.key(seed))
        runs.append(
            (
                gradients,
                evaluate(variables, inputs),
                evaluate(variables, inputs),
                evaluate_in_bfloat16(variables, round_to_bfloat16(inputs)),
            )
        )
    compiled = (gradient, evaluate, evaluate_in_bfloat16)
    counts = tuple(function._cache_size() for function in compiled)
    return Swept(*map(list, zip(*runs, strict=True)), counts)


@every_part
def test_every_gradient_of_a_training_step_is_finite(part):
    gradients = jax.tree_util.tree_leaves_with_path(sweep(part).gradients)
    assert gradients
    for path, leaf in gradients:
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


@every_part
def test_no_parameter_is_disconnected(part):
    """Of two steps one at least has a gradient: chance drops whole blocks of the other.

    A bias before batch normalization has one by rounding alone, as in VGG-BN.
    """
    first, second = (parameters for parameters, _ in sweep(part).gradients)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True
    ):
        assert np.any(x) or np.any(y), jax.tree_util.keystr(path)


@every_part
def test_other_values_compile_nothing_anew(part):
    assert sweep(part).compilations == (1, 1, 1)


@every_part
def test_evaluation_gives_the_same_bits_twice(part):
    swept = sweep(part)
    same = jax.tree.map(np.array_equal, swept.outputs, swept.again)
    assert jax.tree.all(same)


def relative_difference(x, y):
    y = y.astype(np.float32)
    return np.abs(y - x).max() / np.abs(x).max()


@every_part
def test_bfloat16_agrees_with_float32(part):
    swept = sweep(part)
    error = jax.tree.map(relative_difference, swept.outputs, swept.in_bfloat16)
    for path, x in jax.tree_util.tree_leaves_with_path(error):
        assert x < TOLERANCE, f"{jax.tree_util.keystr(path)}: {x:.4f}"


@pytest.mark.parametrize("name", [names[1] for names in kinds() if len(names) > 1])
def test_the_second_of_a_kind_can_be_traced_in_training(name):
    module = backbones.build(name)
    inputs = (jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32),)
    params, statistics = split(abstract_variables(module, inputs))
    gradient = jax.grad(loss(module), has_aux=True)
    key = jax.random.key(0)
    _, updated = jax.eval_shape(gradient, params, statistics, inputs, key)
    assert updated == statistics
