"""What the weights to begin with decide in a config: the pixels, and the backbone's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpn_jax import backbones, pretrained
from fpn_jax import config as configs
from fpn_jax.errors import InputError


def adopt(
    resolved: dict[str, Any], overridden: frozenset[str], workdir: str | None
) -> list[str]:
    """Sets what the weights to begin with decide; the command line wins.

    Args:
      resolved: The config, changed in place.
      overridden: Dotted keys that the command line set.
      workdir: Where a run may have begun already; then the weights that it began with
        are not needed any more.

    Returns:
      A line for each key that changed.

    Raises:
      InputError: A key was set that has no effect without weights, or they cannot be
        read, or are those of another backbone.
    """
    path, notes = resolved["pretrained"]["path"], []
    for key, other in (("recipe", Path.is_dir), ("parts", Path.is_file)):
        if (not path or other(Path(path))) and f"pretrained.{key}" in overridden:
            wanted = "a file" if key == "recipe" else "the workdir of a run"
            raise InputError(
                f"--config.pretrained.{key} has no effect: it is for a "
                f"pretrained.path that is {wanted}, and pretrained.path is {path!r}"
            )
    given = _decided(resolved, workdir)
    mine, theirs = resolved["backbone"], given.get("backbone.name")
    if theirs not in (None, mine["name"]):
        if "backbone.name" in overridden:
            raise InputError(
                f"backbone.name is {mine['name']!r}, but the run of {path} has "
                f"{theirs!r}; leave it out"
            )
        # The file's other arguments are those of its own backbone.
        resolved["backbone"] = {
            key: value for key, value in mine.items() if f"backbone.{key}" in overridden
        }
    made_for = backbones.build(mine["name"]).native_size
    size = resolved["data"]["image_size"]
    if Path(path).is_file() and size != made_for:
        notes.append(
            f"data.image_size is {size}; the weights were made with {made_for} px"
        )
    for key, value in given.items():
        part, name = key.split(".")
        before = resolved[part].get(name)
        # As JSON, in which a list and a tuple are the same.
        if key in overridden or json.dumps(before) == json.dumps(value):
            continue
        resolved[part][name] = value
        notes.append(f"{key} is {value!r}: it comes with the weights")
    return notes


def _decided(config: Mapping[str, Any], workdir: str | None) -> dict[str, Any]:
    """Returns dotted key → value, for what the weights to begin with were made for."""
    path, name = config["pretrained"]["path"], config["backbone"]["name"]
    if not path:
        return {}
    if workdir is not None and configs.is_begun(Path(workdir)):
        begun = configs.of_run(Path(workdir))
        if begun["pretrained"]["path"] == path:
            return _of_run(begun)
    if not Path(path).exists():
        raise InputError(f"pretrained.path {path!r} does not exist")
    if Path(path).is_dir():
        return _of_run(configs.of_run(Path(path)))
    recipe = pretrained.preprocessing(name, config["pretrained"]["recipe"], path)
    given = {"model.mean": recipe.mean, "model.std": recipe.std}
    accepted = backbones.accepts(name)
    for key in ("padding", "epsilon"):
        if key in accepted and getattr(recipe, key) is not None:
            given[f"backbone.{key}"] = getattr(recipe, key)
    return given


def _of_run(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns dotted key → value of a run's pixels and backbone."""
    given = {f"model.{key}": stored["model"][key] for key in ("mean", "std")}
    return given | {f"backbone.{key}": v for key, v in stored["backbone"].items()}
