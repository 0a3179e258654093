"""The flags that make a config: `--config=FILE` and `--config.KEY=VALUE`."""

import ast
import dataclasses
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from fpn_jax import config as configs
from fpn_jax import errors
from fpn_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Given:
    """A config file, changed by the command line.

    Attributes:
      config: The file's config, with the values of the command line.
      overridden: Dotted keys that the command line set.
    """

    config: ConfigDict
    overridden: frozenset[str]


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Separates the words that set keys of the config from all other words.

    Args:
      argv: The command line, program included.

    Returns:
      The other words, and one word `--config.KEY=VALUE` for each key, or
      `--config.KEY` for a key without a value.
    """
    rest, keys, words = [], [], list(argv)
    while words:
        word = words.pop(0)
        if word.startswith("--noconfig."):
            keys.append(f"--config.{word.removeprefix('--noconfig.')}=false")
        elif not word.startswith("--config."):
            rest.append(word)
        elif "=" not in word and words and not words[0].startswith("--"):
            keys.append(f"{word}={words.pop(0)}")
        else:
            keys.append(word)
    return rest, keys


def read(file: str, words: Iterable[str]) -> Given:
    """Runs a config file once, and sets the keys of the command line in its config.

    Args:
      file: `PATH` or `PATH:VARIANT`.
      words: `--config.KEY=VALUE`, as `split` returns them.

    Raises:
      InputError: The file cannot be run, a key is unknown, or a value does not fit.
    """
    config = _run(file)
    typed, free = [], []
    for word in words:
        key, _, text = word.removeprefix("--config.").partition("=")
        if new := configs.new_spelling(key):
            raise InputError(f"--config.{key} is now named --config.{new}")
        if _is_choice(config, key):
            free.append((_full_key(config, key), text))
        else:
            _check_key(config, key)
            typed.append((key, word))
    _set_typed(config, [word for _, word in typed])
    # Names are set first: a new name drops the arguments that belong to the old one.
    for key, text in sorted(free, key=lambda item: not item[0].endswith(".name")):
        _set_choice(config, key, text)
    return Given(config, frozenset(key for key, _ in [*typed, *free]))


def _run(file: str) -> ConfigDict:
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise InputError(f"--config={file}: the file {path} does not exist")
    # Config files import each other as `configs.NAME`, from the folder above theirs.
    sys.path.append(str(Path(path).absolute().parent.parent))
    try:
        get_config = runpy.run_path(path).get("get_config")
        config = get_config and (get_config(variant) if variant else get_config())
    # The file is the user's own code and may raise anything.
    except Exception as error:
        raise InputError(f"--config={file}: {_one_line(error)}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"--config={file}: {path} has no get_config() that returns a ConfigDict"
        )
    return config


def _part_of(key: str) -> str | None:
    """Returns the part to which a dotted key belongs; None for other keys."""
    return next((p for p in configs.PARTS if key == p or key.startswith(f"{p}.")), None)


def _is_choice(config: ConfigDict, key: str) -> bool:
    """Returns whether a key names a choice, or an argument that the file omits."""
    if _part_of(key) is None:
        return False
    present = _get(config, key)
    # A new name replaces a dict; other values must keep the type that the file has.
    return present is None or isinstance(present, ConfigDict) or key.endswith(".name")


def _full_key(config: ConfigDict, key: str) -> str:
    """Returns the key, followed by `.name` if its value is a dict."""
    return f"{key}.name" if isinstance(_get(config, key), ConfigDict) else key


def _check_key(config: ConfigDict, key: str) -> None:
    here, path = config, "--config"
    for name in key.split("."):
        if not isinstance(here, ConfigDict):
            raise InputError(f"{path} is a single value and has no key {name!r}")
        if name not in here:
            raise errors.unknown(f"{path} key", name, here.keys())
        here, path = here[name], f"{path}.{name}"


def _set_typed(config: ConfigDict, words: list[str]) -> None:
    """Sets keys that the file has; a new value must have the type of the old one."""
    values = flags.FlagValues()
    argv = ["fpn_jax", *words]
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=argv, lock_config=False
        )
        values(argv)
    except (flags.Error, ValueError, TypeError) as error:
        raise InputError(_one_line(error)) from error


def _set_choice(config: ConfigDict, key: str, text: str) -> None:
    """Sets a name or an argument of a part; a plain string becomes a dict."""
    *parents, last = key.split(".")
    value = text if last == "name" else _literal(text)
    here = config
    for name in parents:
        if isinstance(here.get(name), str):
            with here.unlocked(), here.ignore_type():
                here[name] = ConfigDict({"name": here[name]})
        if not isinstance(here.get(name), ConfigDict):
            raise InputError(
                f"--config.{key}: {name!r} is a single value and has no keys"
            )
        here = here[name]
    with here.unlocked(), here.ignore_type():
        # A part of the model keeps its arguments; `resolve` drops those that the new
        # choice does not take.
        kept = ".".join(parents) in configs.PARTS and parents[0] != "data"
        if last == "name" and not kept and here.get("name") != value:
            for other in list(here):
                del here[other]
        here[last] = value


def _get(config: ConfigDict, key: str) -> Any:
    """Returns the value of a dotted key, or None if the config lacks the key."""
    for name in key.split("."):
        if not isinstance(config, ConfigDict) or name not in config:
            return None
        config = config[name]
    return config


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
