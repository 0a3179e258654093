"""Necks: pyramid → pyramid."""

import dataclasses

from flax import linen as nn

from fpn_jax import errors
from fpn_jax.necks.fpn import FPN
from fpn_jax.necks.identity import Identity

NECKS = {"fpn": FPN, "identity": Identity}
"""Name → constructor."""


def names() -> tuple[str, ...]:
    """Returns the names that `build` understands."""
    return tuple(NECKS)


def accepts(name: str) -> frozenset[str]:
    """Returns the names of the arguments that `build(name, ...)` takes.

    Raises:
      InputError: The name is unknown.
    """
    if name not in NECKS:
        raise errors.unknown("neck", name, NECKS)
    fields = {field.name for field in dataclasses.fields(NECKS[name])}
    return frozenset(fields - {"parent", "name"})


def build(name: str, /, **arguments: object) -> nn.Module:
    """Returns the neck of a name.

    Args:
      name: One of `names()`.
      **arguments: Attributes of its class, from `accepts(name)`.

    Raises:
      InputError: The name, an argument or an argument's value is not understood.
    """
    choices = accepts(name)
    for argument in arguments:
        if argument not in choices:
            raise errors.unknown(
                f"argument of neck {name!r}", argument, sorted(choices) or ["(none)"]
            )
    return NECKS[name](**arguments)
