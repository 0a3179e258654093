"""Heads: pyramid → predictions."""

import dataclasses

from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.classifier import FlattenClassifier, PoolClassifier

HEADS = {"flatten": FlattenClassifier, "pool": PoolClassifier}
"""Name → constructor."""


def names() -> tuple[str, ...]:
    """Returns the names that `build` understands."""
    return tuple(HEADS)


def accepts(name: str) -> frozenset[str]:
    """Returns the names of the arguments that `build(name, ...)` takes.

    Raises:
      InputError: The name is unknown.
    """
    if name not in HEADS:
        raise errors.unknown("head", name, HEADS)
    fields = {field.name for field in dataclasses.fields(HEADS[name])}
    return frozenset(fields - {"parent", "name"})


def build(name: str, /, **arguments: object) -> nn.Module:
    """Returns the head of a name.

    Args:
      name: One of `names()`.
      **arguments: Attributes of its class, from `accepts(name)`.

    Raises:
      InputError: The name, an argument or an argument's value is not understood, or
        an argument without a default is missing.
    """
    choices = accepts(name)
    for argument in arguments:
        if argument not in choices:
            raise errors.unknown(
                f"argument of head {name!r}", argument, sorted(choices)
            )
    for field in dataclasses.fields(HEADS[name]):
        needed = field.name in choices and field.default is dataclasses.MISSING
        if needed and field.name not in arguments:
            raise errors.InputError(f"head {name!r} needs the argument {field.name!r}")
    return HEADS[name](**arguments)
