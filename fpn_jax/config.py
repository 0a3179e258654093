"""A config as nested dicts: its keys, its JSON form, spellings of earlier versions.

Values are read in `resolve.py` and `experiment.py`; here a config is a nested dict.
"""

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from fpn_jax import errors
from fpn_jax.errors import InputError

Config = ml_collections.FrozenConfigDict
"""A resolved config: complete, and every key in it has an effect."""

PARTS = ("backbone", "neck", "head", "task", "optimizer", "data.source")
"""Dicts of a config that are specs: `name`, and that constructor's arguments."""

RENAMED = {
    "data.drawn": "data.source",
    "data.folder": "data.source",
    "data.tfds.name": "data.source.dataset",
    "data.tfds": "data.source",
    "head.pool_arguments": "head.pool",
    "neck.upsampling_arguments": "neck.upsampling",
    "neck.context_arguments": "neck.context",
}
"""Dotted key of version 0.1 → the key that replaces it."""

MAX_INTEGER, MAX_PART_INTEGER = 2**31 - 1, 2**16
"""Limits of the integers of a config, and of those of a backbone, neck or head."""


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys of one dict of a config.

    Attributes:
      all: Every key that has a meaning.
      needed: Those without a default.
    """

    all: frozenset[str]
    needed: frozenset[str]

    @classmethod
    def exactly(cls, *names: str) -> "Keys":
        """Returns keys that are all needed."""
        return cls(frozenset(names), frozenset(names))

    @classmethod
    def of(cls, constructor: Callable, *, given: tuple[str, ...] = ()) -> "Keys":
        """Returns a constructor's arguments, without those that the code gives."""
        arguments = {
            name: argument
            for name, argument in inspect.signature(constructor).parameters.items()
            if name not in given
        }
        needed = {n for n, a in arguments.items() if a.default is a.empty}
        return cls(frozenset(arguments), frozenset(needed))


def new_spelling(key: str) -> str | None:
    """Returns what replaces a dotted key of an earlier version; None if nothing does.

    Example:
      >>> new_spelling("data.folder.validate_fraction")
      'data.source.validate_fraction'
    """
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return None


def check_keys(config: Mapping[str, Any], keys: Mapping[str, Keys]) -> None:
    """Refuses a config that has other keys than those with a meaning.

    Args:
      config: Nested.
      keys: Dotted name of a dict → its keys; `""` is the config itself.

    Raises:
      InputError: A key is unknown, renamed or missing; names the choices.
    """
    for prefix, known in keys.items():
        here = config
        for name in prefix.split(".") if prefix else ():
            here = here[name]
        for key in here:
            dotted = f"{prefix}.{key}".lstrip(".")
            if key not in known.all and (new := new_spelling(dotted)):
                raise InputError(f"the config's key {dotted} is now {new}")
            if key not in known.all:
                raise errors.unknown(f"config.{prefix} key", key, sorted(known.all))
        for key in sorted(known.needed - here.keys()):
            raise InputError(f"the config lacks {f'{prefix}.{key}'.lstrip('.')}")


def check_scale(config: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Refuses numbers with which nothing can be built, before memory is allocated.

    Args:
      config: Nested.
      parts: Dicts with the smaller limit `MAX_PART_INTEGER`.

    Raises:
      InputError: A number is not finite, or above the limit of its dict.
    """
    for key, value in flat(config).items():
        limit = MAX_PART_INTEGER if key.partition(".")[0] in parts else MAX_INTEGER
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{key} is {value}; give a finite number")
            if isinstance(number, int) and abs(number) > limit:
                raise InputError(f"{key} is {value}; the limit is {limit}")


def load(stored: Mapping[str, Any]) -> Config:
    """Returns a stored config as it was, with JSON's lists as tuples again."""

    def with_tuples(value):
        if isinstance(value, Mapping):
            return {key: with_tuples(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return tuple(with_tuples(item) for item in value)
        return value

    return Config(with_tuples(stored))


def as_json(config: Config) -> dict[str, Any]:
    """Returns the config as JSON would return it: tuples are lists."""
    return json.loads(json.dumps(config.to_dict()))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns dotted key → value.

    Example:
      >>> flat({"data": {"root": "", "image_size": 64}})
      {'data.root': '', 'data.image_size': 64}
    """
    flattened = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flattened |= flat(value, f"{prefix}{key}.")
        else:
            flattened[prefix + key] = value
    return flattened


def upgrade(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored config of version 0.1 in today's form; a newer one as it is.

    Version 0.1 had `data.source` as a name with a dict beside it, the arguments of
    nested choices in dicts of their own (`pool_arguments`), and no name of a task.

    Args:
      stored: The config as JSON, of a run.
    """
    config = json.loads(json.dumps(stored))
    data, source = config["data"], config["data"]["source"]
    if not isinstance(source, str):
        return config
    arguments = data.pop(source)
    if source == "tfds":
        arguments["dataset"] = arguments.pop("name")
    data["source"] = {"name": source} | arguments
    for part, choices in (("head", ("pool",)), ("neck", ("upsampling", "context"))):
        for choice in choices:
            own = config[part].pop(f"{choice}_arguments", None)
            if own:
                config[part][choice] = {"name": config[part][choice]} | own
    config["task"] = {"name": "classification"} | config["task"]
    return config
