"""A config's shape: resolving the choices in it, storing it, comparing two of them.

Values are read in `experiment.py` alone; here a config is only a nested dict.
"""

import ast
import copy
import dataclasses
import inspect
import json
import math
import runpy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from fpn_jax import errors
from fpn_jax.errors import InputError

SOURCES = ("drawn", "folder", "tfds")
"""The choices of `data.source`; each has its own dict below `data`."""

MOST, MOST_OF_A_PART = 2**31 - 1, 2**16
"""Limits of the integers of a config, and of those of a backbone, neck or head."""

MAY_CHANGE = ("data.root", "data.num_threads", "data.num_workers", "data.on_bad_file")
"""Keys in which a resumed run may differ: no batch of good files depends on them."""


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
        """Returns a constructor's arguments, but for those that the code gives."""
        arguments = {
            name: argument
            for name, argument in inspect.signature(constructor).parameters.items()
            if name not in given
        }
        needed = {n for n, a in arguments.items() if a.default is a.empty}
        return cls(frozenset(arguments), frozenset(needed))


def check_keys(config: Mapping[str, Any], keys: Mapping[str, Keys]) -> None:
    """Refuses a config that has other keys than those with a meaning.

    Args:
      config: Resolved, nested.
      keys: Dotted name of a dict → its keys; `""` is the config itself.

    Raises:
      InputError: A key is unknown, or one is missing; names the choices.
    """
    for place, known in keys.items():
        here = config
        for name in place.split(".") if place else ():
            here = here[name]
        for key in here:
            if key not in known.all:
                raise errors.unknown(f"config.{place} key", key, sorted(known.all))
        for key in sorted(known.needed - here.keys()):
            raise InputError(f"the config lacks {f'{place}.{key}'.lstrip('.')}")


def resolve(
    config: ml_collections.ConfigDict,
    overridden: frozenset[str],
    accepts: Mapping[str, Callable[[str], frozenset[str]]],
    keys: Mapping[str, Keys],
) -> tuple[dict[str, Any], list[str]]:
    """Returns the config of this run, in which every key that is left has an effect.

    Where the command line chooses another `neck.name` than the file's, the keys that
    only the file's own neck takes are left out; likewise the dicts of sources that are
    not chosen, and `train.epochs` where the command line gives `train.total_steps`.

    Args:
      config: What the config file and the command line gave.
      overridden: Dotted keys that the command line set.
      accepts: Part of the model, such as `"neck"`, → name → keys that it takes.
      keys: As of `check_keys`.

    Returns:
      The resolved config, and a line for each key that was left out.

    Raises:
      InputError: A choice is unknown, or a key was set that has no effect.
    """
    resolved, notes = copy.deepcopy(config.to_dict()), []
    check_keys(resolved, keys)
    _check_scale(resolved, accepts)
    data = resolved["data"]
    if data["source"] not in SOURCES:
        raise errors.unknown("data.source", data["source"], SOURCES)
    for source in SOURCES:
        if source != data["source"]:
            _refuse_set(
                overridden, f"data.{source}.", f"data.source is {data['source']}"
            )
            data.pop(source, None)
    if data["source"] == "drawn" and data["root"]:
        raise InputError(
            f"data.root is {data['root']!r}, but drawn data has no files; "
            f"add --config.data.source=folder or tfds"
        )
    augment, mix = resolved["augment"], resolved["mix"]
    for key, without, because in (
        ("data.on_bad_file", data["source"] == "drawn", "drawn data has no files"),
        ("data.background", data["source"] == "drawn", "drawn data has no files"),
        (
            "augment.randaugment_magnitude",
            not augment["randaugment_layers"],
            "augment.randaugment_layers is 0",
        ),
        (
            "mix.probability",
            not (mix["mixup_alpha"] or mix["cutmix_alpha"]),
            "mix.mixup_alpha and mix.cutmix_alpha are 0",
        ),
    ):
        if without:
            _refuse_set(overridden, key, because)
    _resolve_length(resolved["train"], overridden)
    for part, accepted in accepts.items():
        chosen = resolved[part]
        takes = accepted(chosen["name"])
        if f"{part}.name" not in overridden:
            continue
        dropped = [key for key in chosen if key != "name" and key not in takes]
        for key in dropped:
            _refuse_set(overridden, f"{part}.{key}", f"{part}.name is {chosen['name']}")
            del chosen[key]
        if dropped:
            notes.append(
                f"{part} {chosen['name']!r} takes no {', '.join(dropped)}: left out"
            )
    return resolved, notes


def _check_scale(resolved: Mapping[str, Any], parts: Iterable[str]) -> None:
    """Refuses numbers with which nothing can be built, before memory is asked for them.

    Raises:
      InputError: A number is not finite, or too large for its place.
    """
    for key, value in flat(resolved).items():
        most = MOST_OF_A_PART if key.partition(".")[0] in parts else MOST
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{key} is {value}; give a finite number")
            if isinstance(number, int) and abs(number) > most:
                raise InputError(f"{key} is {value}; the limit is {most}")


def of_run(workdir: Path) -> dict[str, Any]:
    """Returns the stored config of a run.

    Raises:
      InputError: There is none, or it cannot be read.
    """
    path = workdir / "config.json"
    try:
        stored = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{workdir} is no workdir of a run: {path.name} cannot be read: "
            f"{error.strerror}"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(stored, dict) or not {"model", "backbone"} <= stored.keys():
        raise InputError(
            f"{workdir} is no workdir of a run, by its {path.name}; of a folder with "
            "weights give the file itself"
        )
    return stored


def _refuse_set(overridden: frozenset[str], prefix: str, because: str) -> None:
    for key in sorted(overridden):
        if key.startswith(prefix):
            raise InputError(f"--config.{key} has no effect, because {because}")


def _resolve_length(train: dict[str, Any], overridden: frozenset[str]) -> None:
    """Leaves one of `total_steps` and `epochs`; the command line wins over the file."""
    keys = ("total_steps", "epochs")
    given = [key for key in keys if train[key] is not None]
    on_command_line = [key for key in given if f"train.{key}" in overridden]
    if len(given) == 2 and len(on_command_line) == 1:
        given = on_command_line
    epochs = train["epochs"]
    if given == ["epochs"] and not 0 < epochs < math.inf:
        raise InputError(f"train.epochs is {epochs}; it is above 0")
    if len(given) != 1:
        raise InputError(
            f"train.total_steps is {train['total_steps']} and train.epochs is "
            f"{train['epochs']}; give exactly one of them"
        )
    for key in keys:
        if key not in given:
            train[key] = None


def save(config: Mapping[str, Any], path: Path) -> None:
    """Writes a config as JSON, at once: nobody reads half of it."""
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps(config, indent=2) + "\n")
    written.replace(path)


def load(stored: Mapping[str, Any]) -> ml_collections.FrozenConfigDict:
    """Returns a stored config as it was, lists of JSON being tuples again."""

    def with_tuples(value):
        if isinstance(value, Mapping):
            return {key: with_tuples(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return tuple(with_tuples(item) for item in value)
        return value

    return ml_collections.FrozenConfigDict(with_tuples(stored))


def as_json(config: ml_collections.FrozenConfigDict) -> dict[str, Any]:
    """Returns what JSON will give back: tuples are lists."""
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


def refuse_other(stored: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuses to go on with a run under another config.

    Raises:
      InputError: The configs differ in a key that matters; names each, with both
        values.
    """
    before, after = flat(stored), flat(now)
    differing = [
        f"{key} is {before.get(key, 'absent')!r} there and "
        f"{after.get(key, 'absent')!r} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in MAY_CHANGE
    ]
    if differing:
        shown = "; ".join(differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{where} holds a run of another config: {shown}{more}\n"
            f"take another --workdir, or the config of that run"
        )


def is_begun(workdir: Path) -> bool:
    """Returns whether a workdir holds a checkpoint, which binds it to its config."""
    # Orbax's unfinished ones begin with the step's number as well.
    return any(path.name.isdigit() for path in workdir.glob("checkpoints/*"))


def split_parts(
    argv: list[str], parts: tuple[str, ...]
) -> tuple[list[str], dict[str, Any]]:
    """Takes the arguments of parts that the config's file leaves out.

    The file names a few arguments of its own backbone, neck and head; a constructor
    takes more of them, and refuses what it does not know.

    Args:
      argv: The command line.
      parts: Dicts of the config that hold a constructor's arguments.

    Returns:
      The command line without them, and dotted key → value.
    """
    try:
        config = _load_file(_value_of(argv, "--config") or "")
    # Said where the flags are parsed.
    except Exception:
        return argv, {}
    kept, taken, words = [], {}, iter(argv)
    for word in words:
        key, equals, value = word.removeprefix("--config.").partition("=")
        part, _, name = key.partition(".")
        asked = word.startswith("--config.") and part in parts and name
        if not asked or name in config[part]:
            kept.append(word)
            continue
        value = value if equals else next(words, "")
        try:
            taken[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            taken[key] = value
    return kept, taken


def file_of(argv: list[str]) -> Path | None:
    """Returns the config's file of a command line, or None."""
    value = _value_of(argv, "--config")
    return None if value is None else Path(value.partition(":")[0])


def _load_file(value: str) -> ml_collections.ConfigDict:
    path, _, variant = value.partition(":")
    get_config = runpy.run_path(path)["get_config"]
    return get_config(variant) if variant else get_config()


def explain(error: Exception, argv: list[str]) -> InputError:
    """Returns a sentence for an error that config_flags raised while parsing.

    Args:
      error: What was raised.
      argv: The command line.
    """
    value = _value_of(argv, "--config")
    if value is None:
        return InputError(_one_line(error))
    path = value.partition(":")[0]
    if not Path(path).is_file():
        return InputError(f"--config={value}: there is no file {path}")
    try:
        # config_flags would apply the command line's keys, which are what may be wrong.
        config = _load_file(value)
    except Exception as reason:
        return InputError(f"--config={value}: {_one_line(reason)}")
    for argument in argv[1:]:
        key = argument.lstrip("-").split("=", 1)[0]
        place, here = config, "--config"
        for name in key.split(".")[1:] if key.startswith("config.") else ():
            if not isinstance(place, ml_collections.ConfigDict):
                return InputError(f"{here} is one value and has no key {name!r}")
            if name not in place:
                return errors.unknown(f"{here} key", name, place.keys())
            place, here = place[name], f"{here}.{name}"
    return InputError(_one_line(error))


def _value_of(argv: list[str], flag: str) -> str | None:
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
        if argument == flag:
            return following
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
