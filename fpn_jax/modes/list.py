"""`--mode=list`: lists all names that a config or the command line can use."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from fpn_jax import backbones, heads, modes, necks, tasks
from fpn_jax.data.sources import SOURCES
from fpn_jax.layers.context import CONTEXTS
from fpn_jax.layers.pooling import POOLINGS
from fpn_jax.layers.upsampling import UPSAMPLINGS
from fpn_jax.modes import Options
from fpn_jax.modes.tables import console, table
from fpn_jax.train.optimizer import OPTIMIZERS

SUMMARY = (
    "Lists all available modes, sources, tasks, backbones, necks, heads and so on."
)
TAKES: frozenset[str] = frozenset()
NEEDS: frozenset[str] = frozenset()


def run(options: Options) -> int:
    """Prints all names that a config or the command line can use, and returns 0.

    Args:
      options: The values of the flags.
    """
    summaries = {name: modes.load(name).SUMMARY for name in modes.MODES}
    out = console()
    for title, rows in (
        ("modes: --mode=", summaries.items()),
        ("data sources: --config.data.source=", _described(SOURCES)),
        ("tasks: --config.task.name=", _described(tasks.TASKS)),
        ("backbones: --config.backbone.name=", _variants()),
        ("necks: --config.neck.name=", _described(necks.NECKS)),
        ("upsampling: --config.neck.upsampling=", _described(UPSAMPLINGS)),
        ("contexts: --config.neck.context=", _described(CONTEXTS)),
        ("heads: --config.head.name=", _described(heads.HEADS)),
        ("pooling: --config.head.pool=", _described(POOLINGS)),
        ("optimizers: --config.optimizer.name=", _described(OPTIMIZERS)),
    ):
        out.print(f"{title}…", style="bold")
        shown = table(("name", "left"), ("what", "left"), show_header=False)
        for row in rows:
            shown.add_row(*row)
        out.print(shown)
        out.print()
    out.print(
        "A name with a colon, such as mymodule:MyHead, is a class of your own from a "
        "module on PYTHONPATH."
    )
    return 0


def _described(things: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, thing in things.items():
        constructor, fixed = _taken_apart(thing)
        # For partials over a function, describe the function.
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
