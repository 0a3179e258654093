"""What a model is made of, block by block, and what models can be made of."""

import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import rich.console
import rich.filesize
import rich.table
from flax import linen as nn

from fpn_jax import backbones, experiment, heads, necks
from fpn_jax import config as configs
from fpn_jax.errors import InputError
from fpn_jax.layers.pooling import POOLINGS
from fpn_jax.layers.upsampling import UPSAMPLINGS
from fpn_jax.necks.fpn import CONTEXTS
from fpn_jax.train.optimizer import OPTIMIZERS

DEPTH = 2
"""Names in the path of the smallest block that is shown, as in `backbone/stage1`."""

WIDTH = 100
"""Columns of the output at most."""


class Block(NamedTuple):
    """One row of the table: a submodule, over all of its calls.

    Attributes:
      path: Names of the submodules that lead to it.
      outputs: Name of an output, or "" → its shapes, one a call.
      parameters: Number of trained parameters.
      statistics: Number of values that are kept but not trained, such as averages.
      flops: Of all calls, as XLA counts: multiplications and additions are one each.
      bytes: Of all outputs.
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

    Only shapes are computed. Blocks that neither hold nor compute anything are left
    out, but for the parts of the model.

    Args:
      model: Called as `model(images, train=False)`.
      images: Shape and type, `[B, H, W, 3]`.
    """
    calls: dict[tuple[str, ...], list[_Call]] = {}

    def record(call, args, kwargs, context):
        # Only inside a call does a module know its path.
        is_call = context.method_name == "__call__"
        path = context.module.path if is_call else ()
        if not is_call or len(path) > DEPTH:
            return call(*args, **kwargs)
        made_here = calls.setdefault(path, [])
        module = context.module.clone(parent=None, name=None)
        outputs = call(*args, **kwargs)
        abstract = jax.tree.map(_abstract, ((args, kwargs), outputs))
        made_here.append(_Call(module, *abstract))
        return outputs

    with nn.intercept_methods(record):
        variables = jax.eval_shape(
            functools.partial(model.init, train=False), jax.random.key(0), images
        )
    found = [_block(path, made, variables) for path, made in calls.items()]
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
    held = {key: _below(tree, path) for key, tree in variables.items()}
    sizes = {key: _size(tree) for key, tree in held.items()}
    outputs: dict[str, list[tuple[int, ...]]] = {}
    for call in calls:
        named = call.outputs if isinstance(call.outputs, dict) else {"": call.outputs}
        for name, output in named.items():
            outputs.setdefault(str(name), []).append(output.shape)
    return Block(
        path,
        outputs,
        parameters=sizes.pop("params", 0),
        statistics=sum(sizes.values()),
        flops=sum(_flops(call, held) for call in calls),
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
    places = [
        place
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, jax.ShapeDtypeStruct)
    ]

    def apply(variables, arrays):
        given = dict(zip(places, arrays, strict=True))
        args, kwargs = jax.tree.unflatten(
            structure, [given.get(place, leaf) for place, leaf in enumerate(leaves)]
        )
        return call.module.apply(variables, *args, **kwargs)

    lowered = jax.jit(apply).lower(variables, [leaves[place] for place in places])
    return (lowered.cost_analysis() or {}).get("flops", 0.0)


def run(config: experiment.Config) -> int:
    """Prints the table of the model that a config names; returns the exit code.

    Args:
      config: Resolved.

    Raises:
      InputError: The model cannot be built.
    """
    size = config.data.image_size
    classes, known_from = _classes(config)
    model = experiment.build_model(config, classes)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    whole, *parts = blocks(model, images)
    table = _table(
        ("block", "left"),
        ("output", "left"),
        *((name, "right") for name in ("parameters", "MFLOPs", "output size")),
    )
    for block in parts:
        table.add_row(*_row(block))
    console = _console()
    names = " → ".join(config[part].name for part in experiment.ROOMS)
    console.print(f"{names}, {config.model.dtype}: 1 image of {size} × {size} px")
    console.print(f"{classes} classes: {known_from}\n")
    console.print(table)
    console.print(_totals(whole))
    return 0


def _classes(config: experiment.Config) -> tuple[int, str]:
    """Returns their number, and how it is known."""
    try:
        classes = experiment.source(config, "train").classes
    except InputError as error:
        return 2, f"assumed, because the data is not there ({error})"
    return len(classes), ", ".join(classes)


def _row(block: Block) -> tuple[str, ...]:
    indent = "  " * (len(block.path) - 1)
    lines = []
    for name, shapes in block.outputs.items():
        prefix = f"{name}: " if name else ""
        # The first axis is the image.
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


def _totals(whole: Block) -> str:
    # Both are float32 whatever the model computes in.
    parameters, statistics = (
        f"{count:,} ({rich.filesize.decimal(4 * count)})"
        for count in (whole.parameters, whole.statistics)
    )
    return (
        f"\nparameters  {parameters}\n"
        f"statistics  {statistics}, kept by normalization and not trained\n"
        f"forward     {whole.flops / 1e6:,.2f} MFLOPs\n\n"
        "FLOPs are XLA's count before it optimizes, a multiplication and an addition "
        "being two. A part's include what lies between its blocks: pooling, resizing, "
        "sums."
    )


def print_choices(modes: Mapping[str, str]) -> int:
    """Prints everything that a config or the command line can name; returns 0.

    Args:
      modes: Name of a mode → what it does.
    """
    optimizers = {name: getattr(optax, name) for name in OPTIMIZERS}
    sources = {
        name: importlib.import_module(f"fpn_jax.data.{name}")
        for name in configs.SOURCES
    }
    console = _console()
    for title, rows in (
        ("modes: --mode=", modes.items()),
        ("data sources: --config.data.source=", _described(sources)),
        ("backbones: --config.backbone.name=", _variants()),
        ("necks: --config.neck.name=", _described(necks.NECKS)),
        ("upsamplings: --config.neck.upsampling=", _described(UPSAMPLINGS)),
        ("contexts: --config.neck.context=", _described(CONTEXTS)),
        ("heads: --config.head.name=", _described(heads.HEADS)),
        ("poolings: --config.head.pool=", _described(POOLINGS)),
        ("optimizers: --config.optimizer.name=", _described(optimizers)),
    ):
        console.print(f"{title}…", style="bold")
        table = _table(("name", "left"), ("what", "left"), show_header=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    return 0


def _described(things: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, thing in things.items():
        constructor, fixed = _taken_apart(thing)
        # Where a class is told by a function what to do, that says more than the class.
        functions = [value for value in fixed.values() if inspect.isfunction(value)]
        yield name, _first_sentence(*functions or [constructor])


def _variants() -> Iterator[tuple[str, str]]:
    described = None
    for name in backbones.names():
        constructor, fixed = _taken_apart(backbones.BACKBONES[name])
        if constructor is not described:
            yield "", _first_sentence(constructor)
            described = constructor
        backbone = backbones.build(name)
        levels, size = sorted(backbone.levels), backbone.native_size
        facts = f"{size:3} px, levels {levels[0]}–{levels[-1]}"
        yield name, ", ".join([facts, *_arguments(fixed)])


def _taken_apart(constructor: Any) -> tuple[Any, Mapping[str, Any]]:
    if isinstance(constructor, functools.partial):
        return constructor.func, constructor.keywords
    return constructor, {}


def _first_sentence(thing: Any) -> str:
    first_paragraph = inspect.getdoc(thing).split("\n\n")[0]
    return " ".join(first_paragraph.split())


def _arguments(fixed: Mapping[str, Any]) -> Iterator[str]:
    for key, value in fixed.items():
        if hasattr(value, "_asdict"):
            yield from _arguments(value._asdict())
        elif key != "native_size":
            yield f"{key}={getattr(value, '__name__', value)}"


def _table(*columns: tuple[str, str], show_header: bool = True) -> rich.table.Table:
    table = rich.table.Table(box=None, pad_edge=False, show_header=show_header)
    for name, justify in columns:
        table.add_column(name, justify=justify)
    return table


def _console() -> rich.console.Console:
    terminal = rich.console.Console(highlight=False)
    width = min(terminal.width, WIDTH) if terminal.is_terminal else WIDTH
    return rich.console.Console(highlight=False, markup=False, width=width)
