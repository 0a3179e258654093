"""Parts of a model by name: what backbones, necks and heads answer alike."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from flax import linen as nn

from fpn_jax import errors


class Registry(NamedTuple):
    """The three questions to a literal table of constructors."""

    names: Callable[[], tuple[str, ...]]
    accepts: Callable[[str], frozenset[str]]
    build: Callable[..., nn.Module]


def registry(kind: str, table: Mapping[str, Callable[..., nn.Module]]) -> Registry:
    """Returns `names`, `accepts` and `build` of a table.

    Args:
      kind: What the table holds, for sentences, such as `"backbone"`.
      table: Name → a module's class, or a `functools.partial` of one; what the partial
        fixes is no argument of `build`.
    """

    def fields(name: str) -> dict[str, dataclasses.Field]:
        if name not in table:
            raise errors.unknown(kind, name, table)
        constructor, fixed = table[name], {"parent": None, "name": None}
        if isinstance(constructor, functools.partial):
            constructor, fixed = constructor.func, fixed | constructor.keywords
        declared = {field.name: field for field in dataclasses.fields(constructor)}
        return {key: declared[key] for key in declared if key not in fixed}

    def names() -> tuple[str, ...]:
        """Returns the names that `build` understands."""
        return tuple(table)

    def accepts(name: str) -> frozenset[str]:
        """Returns the names of the arguments that `build(name, …)` takes.

        Raises:
          InputError: The name is unknown.
        """
        return frozenset(fields(name))

    def build(name: str, /, **arguments: object) -> nn.Module:
        """Returns the module of a name.

        Args:
          name: One of `names()`.
          **arguments: Attributes of its class, from `accepts(name)`.

        Raises:
          InputError: The name, an argument or an argument's value is not understood,
            or an argument without a default is missing.
        """
        choices = fields(name)
        for key in arguments:
            if key not in choices:
                taken = sorted(choices) or ["(none)"]
                raise errors.unknown(f"argument of {kind} {name!r}", key, taken)
        for key, field in choices.items():
            if key not in arguments and field.default is dataclasses.MISSING:
                raise errors.InputError(f"{kind} {name!r} needs the argument {key!r}")
        return table[name](**arguments)

    return Registry(names, accepts, build)
