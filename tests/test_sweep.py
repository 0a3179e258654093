"""Every registered part: gradients, determinism, bfloat16, and number of compilations.

Backbones that differ only in numbers, such as the number of blocks or the width, are of
one kind. The first of each kind, which is the smallest, is run, with a small width. The
second is only traced. Backbones with other classes of blocks or other switches are of
another kind. `test_backbones.py` tests the shapes of all backbones.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fpn_jax import backbones, heads, necks
from fpn_jax.errors import InputError
from fpn_jax.exporters.stablehlo import PLATFORMS
from fpn_jax.layers import pooling, upsampling
from fpn_jax.pyramid import Backbone, Head, Neck, is_aligned, level_size

TOLERANCE = 2e-2
"""Largest error of bfloat16, relative to the largest value of a map in float32."""
BATCH = 2
SIZE = 64
SMALL = {
    "width": 8,
    "width_multiplier": 0.25,
    "combine": "concat",
    "num_classes": 3,
    "num_mask_classes": 3,
    "num_landmarks": 5,
    "dropout": 0.5,
}
"""Arguments that make parts small; a part gets those that it takes."""
OF_HEADS = {
    # Group normalization has groups of one channel or more.
    name: {"width": 32}
    for name in ("semantic_fpn", "localizer", "landmark_heat_maps", "landmark_points")
} | {
    "fcos": {"width": 32, "convolutions": 2},
    "grid": {"num_anchors": 3, "norm": "group", "width": 32, "level": 3},
    "dense": {"num_anchors": 3, "norm": "group", "width": 32, "convolutions": 2},
}
"""Head → arguments that it needs instead."""


class Upsampled(nn.Module):
    """An upsampling to an odd width, with the signature of all other parts."""

    upsampling: nn.Module

    def __call__(self, x, *, train):
        return self.upsampling(x, (10, 11))


class Case(NamedTuple):
    registry: Any
    name: str
    arguments: dict[str, Any]

    def build(self, dtype=jnp.float32):
        accepted = self.registry.accepts(self.name)
        given = {key: SMALL[key] for key in SMALL.keys() & accepted} | self.arguments
        if "dtype" in accepted:
            given["dtype"] = dtype
        module = self.registry.build(self.name, **given)
        return Upsampled(module) if self.registry is upsampling else module

    def inputs(self, module, seed):
        """Returns arrays that bfloat16 represents exactly."""
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return rng.normal(size=shape).astype(jnp.bfloat16).astype(np.float32)

        if self.registry is backbones:
            return (normal(BATCH, SIZE, SIZE, 3),)
        if self.registry is pooling:
            return (normal(BATCH, 6, 6, 4),)
        if self.registry is upsampling:
            return (normal(BATCH, 5, 6, 8),)
        return tuple(
            {
                level: normal(BATCH, *level_size((SIZE, SIZE), level + scale), 8)
                for level in (2, 3, 4, 5)
            }
            for scale in range(module.num_scales if self.registry is necks else 1)
        )


def kind(name):
    """Returns the kind of a backbone: its class, and arguments that are no numbers."""
    constructor = backbones.BACKBONES[name]
    if not isinstance(constructor, functools.partial):
        return constructor
    fixed = constructor.keywords.items()
    return constructor.func, *(
        (key, value) for key, value in fixed if isinstance(value, type | bool | str)
    )


def kinds():
    """Returns the names of the backbones, grouped by kind."""
    grouped = {}
    for name in backbones.names():
        grouped.setdefault(kind(name), []).append(name)
    return list(grouped.values())


def cases():
    for registry, title, names in (
        (backbones, "backbone", [names[0] for names in kinds()]),
        (necks, "neck", necks.names()),
        (heads, "head", heads.names()),
        (pooling, "pool", pooling.names()),
        (upsampling, "upsampling", upsampling.names()),
    ):
        for name in names:
            arguments = OF_HEADS.get(name, {}) if registry is heads else {}
            yield f"{title}-{name}", Case(registry, name, arguments)
    for name in pooling.names():
        if "window" in pooling.accepts(name):
            yield f"window-{name}", Case(pooling, name, {"window": 3, "stride": 2})


OPTIONS = {
    "fpn-ppm": Case(necks, "fpn", {"context": "ppm"}),
    "fpn-aspp": Case(necks, "fpn", {"context": "aspp"}),
    "deeplab-separable": Case(necks, "deeplab", {"separable": True}),
    "unet-transposed": Case(necks, "unet", {"upsampling": "transposed"}),
    "class_map-hidden": Case(heads, "class_map", {"width": 8}),
    "spp-lip": Case(heads, "spp", {"pool": {"name": "lip", "width": 4}}),
    "covariance-log": Case(pooling, "covariance", {"method": "log"}),
    "covariance-newton_schulz": Case(
        pooling, "covariance", {"method": "newton_schulz"}
    ),
    "resnet18-dilated": Case(backbones, "resnet18", {"output_stride": 8}),
    "resnet18-same": Case(backbones, "resnet18", {"padding": "same", "levels": (3,)}),
    "alexnet-paper": Case(backbones, "alexnet", {"padding": "paper"}),
}
"""Options that use other code."""

CASES = dict(cases()) | OPTIONS
GAINS = {"backbone-mobilenet_v2": 1}
"""Part → gain of its random kernels; the default 2 keeps the variance through a ReLU.

MobileNetV2 adds projections without a ReLU. With a gain of 2, its maps exceed 6, at
which ReLU6 clips, and the error of bfloat16 reaches 0.45 of the largest value.
"""
every_part = pytest.mark.parametrize("part", CASES)


def random_variables(abstract, seed, gain):
    """Returns random variables from NumPy, because compiling `init` takes too long."""
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
    """Returns the parameters and the other collections."""
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


def parts_of(registry):
    return [name for name, case in CASES.items() if case.registry is registry]


@pytest.mark.parametrize("name", backbones.names())
def test_every_backbone_implements_the_backbone_protocol(name):
    backbone = backbones.build(name)
    assert isinstance(backbone, Backbone)
    assert tuple(backbone.channels) == tuple(sorted(backbone.levels))
    assert is_aligned(backbone.cell_offset((SIZE, SIZE)))
    for padding in backbone.paddings:
        assert backbones.build(name, padding=padding).padding == padding


@pytest.mark.parametrize("part", parts_of(necks))
def test_every_neck_implements_the_neck_protocol(part):
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


def test_a_part_without_the_members_implements_no_protocol():
    """Checks that the tests above would detect a missing member."""
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
    """Runs a part on two sets of values: gradients, evaluation, and bfloat16."""
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
    """Checks that every parameter has a gradient in at least one of two steps.

    Stochastic depth may drop blocks in one step. The gradient of a bias before batch
    normalization, as in VGG-BN, is only a rounding error.
    """
    first, second = (parameters for parameters, _ in sweep(part).gradients)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True
    ):
        assert np.any(x) or np.any(y), jax.tree_util.keystr(path)


@every_part
def test_new_values_do_not_trigger_a_compilation(part):
    assert sweep(part).compilations == (1, 1, 1)


@every_part
def test_evaluation_is_bitwise_deterministic(part):
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
def test_the_second_variant_of_a_kind_can_be_traced_in_training(name):
    module = backbones.build(name)
    inputs = (jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32),)
    params, statistics = split(abstract_variables(module, inputs))
    gradient = jax.grad(loss(module), has_aux=True)
    key = jax.random.key(0)
    _, updated = jax.eval_shape(gradient, params, statistics, inputs, key)
    assert updated == statistics


def exported(module, inputs):
    """Exports the evaluation for any batch size; only lowers it, for all platforms."""
    (batch,) = jax.export.symbolic_shape("b")
    variables = abstract_variables(module, inputs)
    inputs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), inputs
    )
    export = jax.export.export(evaluation(module), platforms=PLATFORMS)
    return batch, export(variables, inputs).out_avals


@every_part
def test_every_part_is_exported_with_a_symbolic_batch(part):
    module = CASES[part].build()
    batch, outputs = exported(module, CASES[part].inputs(module, 0))
    assert {x.shape[0] for x in outputs} == {batch}


def pools_of(head):
    """Yields name and head for every pooling layer that the head accepts."""
    for pool in pooling.names():
        try:
            yield pool, Case(heads, head, {"pool": pool}).build()
        except InputError:
            continue


@pytest.mark.parametrize("head", ["pool", "spp"])
def test_every_pool_of_a_head_is_exported_with_a_symbolic_batch(head):
    """The parts are tested above, so one level is enough."""
    made = dict(pools_of(head))
    assert len(made) > 5
    for module in made.values():
        pyramid = {3: jax.ShapeDtypeStruct((BATCH, 5, 6, 4), jnp.float32)}
        batch, (logits,) = exported(module, (pyramid,))
        assert logits.shape == (batch, 3)


@every_part
def test_every_part_takes_an_empty_batch(part):
    module = CASES[part].build()
    inputs = CASES[part].inputs(module, 0)
    variables = abstract_variables(module, inputs)
    empty = jax.tree.map(lambda x: x[:0], inputs)
    outputs = jax.eval_shape(evaluation(module), variables, empty)
    assert {x.shape[0] for x in jax.tree.leaves(outputs)} == {0}
    gradient = jax.grad(loss(module), argnums=(0, 2), has_aux=True)
    jax.eval_shape(gradient, *split(variables), empty, jax.random.key(0))
