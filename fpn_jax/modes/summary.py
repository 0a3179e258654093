"""`--mode=summary`: shows the blocks of a model, without training it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import rich.filesize
from flax import linen as nn

from fpn_jax.config import Config
from fpn_jax.data.records import SourceInfo
from fpn_jax.errors import InputError
from fpn_jax.experiment import Experiment
from fpn_jax.model import PARTS
from fpn_jax.modes import Options
from fpn_jax.modes.tables import console, table
from fpn_jax.parts import source
from fpn_jax.resolve import resolve

SUMMARY = "Shows the blocks of a model: outputs, parameters, FLOPs, memory."
TAKES = frozenset({"config"})
NEEDS = frozenset({"config"})

DEPTH = 2
"""Number of names in the path of the smallest displayed block, `backbone/stage1`."""


class Block(NamedTuple):
    """One row of the table: a submodule, summed over all of its calls.

    Attributes:
      path: Names of the submodules that lead to the block.
      outputs: Name of an output, or "" for a single output → its shape in every call.
      parameters: Number of trained parameters.
      statistics: Number of values that are stored but not trained, such as averages.
      flops: FLOPs of all calls; XLA counts a multiplication and an addition as two.
      bytes: Size of all outputs.
    """

    path: tuple[str, ...]
    outputs: dict[str, list[tuple[int, ...]]]
    parameters: int
    statistics: int
    flops: float
    bytes: int


class _Call(NamedTuple):
    module: nn.Module
    arguments: tuple[tuple, dict[str, Any]]
    outputs: Any


def blocks(model: nn.Module, images: jax.ShapeDtypeStruct) -> list[Block]:
    """Returns the model itself (path `()`) and its blocks, in the order of their calls.

    Computes only shapes. Omits blocks without parameters and FLOPs, except for the
    parts of the model.

    Args:
      model: A module that is called as `model(images, train=False)`.
      images: Shape and type of the images, `[B, H, W, 3]`.
    """
    calls: dict[tuple[str, ...], list[_Call]] = {}

    def record(call, args, kwargs, context):
        # A module knows its path only during a call.
        is_call = context.method_name == "__call__"
        path = context.module.path if is_call else ()
        if not is_call or len(path) > DEPTH:
            return call(*args, **kwargs)
        calls_of_block = calls.setdefault(path, [])
        module = context.module.clone(parent=None, name=None)
        outputs = call(*args, **kwargs)
        abstract = jax.tree.map(_abstract, ((args, kwargs), outputs))
        calls_of_block.append(_Call(module, *abstract))
        return outputs

    with nn.intercept_methods(record):
        variables = jax.eval_shape(
            functools.partial(model.init, train=False), jax.random.key(0), images
        )
    found = [_block(path, its_calls, variables) for path, its_calls in calls.items()]
    return [
        block
        for block in found
        if len(block.path) < DEPTH or block.parameters or block.flops
    ]


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


def _block(path: tuple[str, ...], calls: list[_Call], variables: Any) -> Block:
    own = {key: _below(tree, path) for key, tree in variables.items()}
    sizes = {key: _size(tree) for key, tree in own.items()}
    outputs: dict[str, list[tuple[int, ...]]] = {}
    for call in calls:
        named = call.outputs if isinstance(call.outputs, dict) else {"": call.outputs}
        for name, output in named.items():
            # The predictions of a detector are dicts by level.
            shapes = [leaf.shape for leaf in jax.tree.leaves(output)]
            outputs.setdefault(str(name), []).extend(shapes)
    return Block(
        path,
        outputs,
        parameters=sizes.pop("params", 0),
        statistics=sum(sizes.values()),
        flops=sum(_flops(call, own) for call in calls),
        bytes=sum(_bytes(call.outputs) for call in calls),
    )


def _below(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _flops(call: _Call, variables: Any) -> float:
    leaves, structure = jax.tree.flatten(call.arguments)
    traced = [
        position
        for position, leaf in enumerate(leaves)
        if isinstance(leaf, jax.ShapeDtypeStruct)
    ]

    def apply(variables, arrays):
        given = dict(zip(traced, arrays, strict=True))
        args, kwargs = jax.tree.unflatten(
            structure, [given.get(n, leaf) for n, leaf in enumerate(leaves)]
        )
        return call.module.apply(variables, *args, **kwargs)

    lowered = jax.jit(apply).lower(variables, [leaves[n] for n in traced])
    return (lowered.cost_analysis() or {}).get("flops", 0.0)


def run(options: Options) -> int:
    """Prints a table of the blocks of a model, and returns the exit code.

    Args:
      options: The values of the flags.

    Raises:
      InputError: The model cannot be built.
    """
    config = resolve(options.given)
    size = config.data.image_size
    info, known_from = _info(config)
    model = Experiment(config, info).model
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    total, *parts = blocks(model, images)
    shown = table(
        ("block", "left"),
        ("output", "left"),
        *((name, "right") for name in ("parameters", "MFLOPs", "output size")),
    )
    for block in parts:
        shown.add_row(*_row(block))
    out = console()
    names = " → ".join(config[part].name for part in PARTS)
    out.print(f"{names}, {config.model.dtype}: 1 image of {size} × {size} px")
    out.print(f"{len(info.classes)} classes: {known_from}\n")
    out.print(shown)
    out.print(_totals(total))
    return 0


def _info(config: Config) -> tuple[SourceInfo, str]:
    """Returns the classes and fields of the data, and where they come from."""
    try:
        info = source(config, "train").info
    except InputError as error:
        assumed = SourceInfo(classes=("0", "1"), fields=("label",))
        return assumed, f"assumed, because the data cannot be read ({error})"
    return info, ", ".join(info.classes)


def _row(block: Block) -> tuple[str, ...]:
    indent = "  " * (len(block.path) - 1)
    lines = []
    for name, shapes in block.outputs.items():
        prefix = f"{name}: " if name else ""
        # The first axis is the batch.
        lines.append(prefix + ", ".join(_times(shape[1:]) for shape in shapes))
    return (
        indent + "/".join(block.path),
        "\n".join(lines),
        f"{block.parameters:,}",
        f"{block.flops / 1e6:,.2f}",
        rich.filesize.decimal(block.bytes),
    )


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _totals(total: Block) -> str:
    # Parameters and statistics are stored in float32, whatever `model.dtype` is.
    parameters, statistics = (
        f"{count:,} ({rich.filesize.decimal(4 * count)})"
        for count in (total.parameters, total.statistics)
    )
    return (
        f"\nparameters  {parameters}\n"
        f"statistics  {statistics}, stored by normalization layers, not trained\n"
        f"forward     {total.flops / 1e6:,.2f} MFLOPs\n\n"
        "FLOPs are XLA's count before optimization: a multiplication and an addition "
        "count as two. The FLOPs of a part include the operations between its blocks: "
        "pooling, resizing, sums."
    )
