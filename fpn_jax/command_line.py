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
    config, overridden = _run(file), set()
    names, others = [], []
    for word in words:
        key, _, text = word.removeprefix("--config.").partition("=")
        if new := configs.new_spelling(key):
            raise InputError(f"--config.{key} is now named --config.{new}")
        (names if _is_name(config, key) else others).append((key, text, word))
    # Names are set first: a new name drops the arguments that belong to the old one.
    for key, text, _ in names:
        overridden |= _set_name(config, key, text)
    omitted = [
        (key, text)
        for key, text, _ in others
        if _part_of(key) is not None and _get(config, key) is None
    ]
    typed = [(k, word) for k, text, word in others if (k, text) not in omitted]
    for key, _ in typed:
        _check_key(config, key)
    _set_typed(config, [word for _, word in typed])
    # A choice is set before its arguments, which have longer keys.
    for key, text in sorted(omitted, key=lambda item: item[0].count(".")):
        _set(config, key, _literal(text))
    overridden |= {key for key, *_ in others}
    return Given(config, frozenset(overridden))


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


def _is_name(config: ConfigDict, key: str) -> bool:
    """Returns whether a key sets the name of a choice, or another word of a part."""
    if _part_of(key) is None:
        return False
    return key.endswith(".name") or isinstance(_get(config, key), str | ConfigDict)


def _check_key(config: ConfigDict, key: str) -> None:
    here, path = config, "--config"
    for name in key.split("."):
        if not isinstance(here, ConfigDict):
            raise InputError(f"{path} is a single value and has no key {name!r}")
        if name not in here:
            raise errors.unknown(f"{path} key", name, here.keys())
        here, path = here[name], f"{path}.{name}"
    if isinstance(here, ConfigDict):
        raise InputError(
            f"{path} is a group of keys; set one of them, {path}.KEY=VALUE: "
            f"{', '.join(here)}"
        )


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


def _set_name(config: ConfigDict, key: str, text: str) -> set[str]:
    """Sets a choice by its name, or by a dict literal; returns the keys that it set."""
    key, present = key.removesuffix(".name"), _get(config, key.removesuffix(".name"))
    spec = _literal(text)
    if isinstance(spec, dict):
        _set(config, key, ConfigDict(spec))
        return {f"{key}.{name}" for name in spec}
    if isinstance(present, str) and key not in configs.PARTS:
        _set(config, key, text)
        return {key}
    # A part of the model keeps its arguments; `resolve` drops those that the new choice
    # does not take.
    kept = key in configs.PARTS and not key.startswith("data.")
    old = present if isinstance(present, ConfigDict) else ConfigDict()
    if kept or old.get("name") == text:
        spec = old.to_dict() | {"name": text}
    else:
        spec = {"name": text}
    _set(config, key, ConfigDict(spec))
    return {f"{key}.name"}


def _set(config: ConfigDict, key: str, value: Any) -> None:
    """Sets a key of a part, of any type; a string on the way becomes a dict."""
    *parents, last = key.split(".")
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
        here[last] = value


def _get(config: ConfigDict, key: str) -> Any:
    """Returns the value of a dotted key, or None if the config lacks the key."""
    for name in key.split("."):
        if not isinstance(config, ConfigDict) or name not in config:
            return None
        config = config[name]
    return config


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
