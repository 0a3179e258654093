"""A config as nested dicts: its keys, its JSON form, and keys of earlier versions.

Values are read in `resolve.py` and `experiment.py`; here a config is a nested dict.
"""

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from fpn_jax import errors, types
from fpn_jax.errors import InputError

Config = ml_collections.FrozenConfigDict
"""A resolved config: complete, and every key in it has an effect."""

PARTS = ("backbone", "neck", "head", "task", "optimizer", "data.source")
"""Dicts of a config that are specs: a `name`, and the arguments of its constructor."""

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
"""Largest integer in a config, and in the spec of a backbone, neck or head."""


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys of one dict of a config.

    Attributes:
      types: Every key that has a meaning → the annotation of its values.
      needed: The keys without a default.
    """

    types: Mapping[str, Any]
    needed: frozenset[str]

    @classmethod
    def exactly(cls, **annotations: Any) -> "Keys":
        """Returns keys that are all needed.

        Args:
          **annotations: Key → the annotation of its values.
        """
        return cls(annotations, frozenset(annotations))

    @classmethod
    def of(cls, constructor: Callable, *, given: tuple[str, ...] = ()) -> "Keys":
        """Returns the arguments of a constructor that a config can set.

        Args:
          constructor: A function or class.
          given: Arguments that the code passes, which are no keys of a config.
        """
        arguments = {
            name: argument
            for name, argument in inspect.signature(constructor).parameters.items()
            if name not in given
        }
        needed = {n for n, a in arguments.items() if a.default is a.empty}
        annotations = {n: a.annotation for n, a in arguments.items()}
        return cls(annotations, frozenset(needed))


def new_spelling(key: str) -> str | None:
    """Returns the key that replaces a dotted key of an earlier version, or None.

    Args:
      key: A dotted key.

    Example:
      >>> new_spelling("data.folder.validate_fraction")
      'data.source.validate_fraction'
    """
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return None


def check_keys(config: Mapping[str, Any], keys: Mapping[str, Keys]) -> None:
    """Refuses a config with an unknown key, a missing key, or a value of a wrong type.

    Args:
      config: Nested dicts.
      keys: Dotted name of a dict → its keys; `""` is the config itself.

    Raises:
      InputError: A key is unknown, renamed or missing, or a value has another type than
        its annotation. The text names the choices.
    """
    for prefix, known in keys.items():
        here = config
        for name in prefix.split(".") if prefix else ():
            here = here[name]
        if not isinstance(here, Mapping):
            raise InputError(
                f"{prefix} is {here!r}; it must be a dict with the keys "
                f"{', '.join(known.types)}"
            )
        for key, value in here.items():
            dotted = f"{prefix}.{key}".lstrip(".")
            if key not in known.types and (new := new_spelling(dotted)):
                raise InputError(
                    f"the config has the key {dotted}, which is now named {new}"
                )
            if key not in known.types:
                raise errors.unknown(f"config.{prefix} key", key, sorted(known.types))
            types.check(dotted, value, known.types[key])
        for key in sorted(known.needed - here.keys()):
            raise InputError(f"the config lacks {f'{prefix}.{key}'.lstrip('.')}")


def check_scale(config: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Refuses numbers that are too large to build anything, before memory is allocated.

    Args:
      config: Nested dicts.
      parts: Names of the dicts that have the smaller limit `MAX_PART_INTEGER`.

    Raises:
      InputError: A number is not finite, or its absolute value is above the limit.
    """
    for key, value in flat(config).items():
        limit = MAX_PART_INTEGER if key.partition(".")[0] in parts else MAX_INTEGER
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{key} is {value}; give a finite number")
            if isinstance(number, int) and abs(number) > limit:
                raise InputError(f"{key} is {value}; the limit is {limit}")


def load(stored: Mapping[str, Any]) -> Config:
    """Returns a stored config in the form that it had before JSON: lists become tuples.

    Args:
      stored: Nested dicts, as read from JSON.
    """

    def with_tuples(value):
        if isinstance(value, Mapping):
            return {key: with_tuples(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return tuple(with_tuples(item) for item in value)
        return value

    return Config(with_tuples(stored))


def as_json(config: Config) -> dict[str, Any]:
    """Returns the config in the form that JSON reads back: tuples become lists."""
    return json.loads(json.dumps(config.to_dict()))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested config as one dict, dotted key → value.

    Args:
      config: Nested dicts.
      prefix: Begins every key, such as `"data."`.

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
    """Returns a stored config of version 0.1 in today's form; a newer one unchanged.

    In version 0.1 `data.source` was a name, with its arguments in a dict beside it. The
    arguments of nested choices had dicts of their own, such as `pool_arguments`, and
    the task had no name.

    Args:
      stored: The config of a run, as read from JSON.
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
