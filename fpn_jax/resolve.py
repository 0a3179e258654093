"""Completes the config of a run from the config file and the command line."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpn_jax import backbones, errors, paths, pretrained, tasks
from fpn_jax import config as configs
from fpn_jax.command_line import Given
from fpn_jax.config import Config, Keys
from fpn_jax.data import augmentation, sources
from fpn_jax.errors import InputError
from fpn_jax.model import PARTS as MODEL_PARTS
from fpn_jax.ops import mixing
from fpn_jax.registry import Registry, Spec
from fpn_jax.train import optimizer
from fpn_jax.workdir.folder import Workdir

SOURCES = Registry("source", sources.SOURCES, members=("__len__", "__getitem__", "id"))
"""The sources of data that a config can name."""

REGISTRIES = {
    **MODEL_PARTS,
    "task": tasks.REGISTRY,
    "optimizer": optimizer.REGISTRY,
    "data.source": SOURCES,
}
"""Dotted key of every spec in a config → the registry that builds it."""

KEYS = {
    "": Keys.exactly(
        data=Mapping,
        augment=Mapping,
        mix=Mapping,
        backbone=Spec,
        neck=Spec,
        head=Spec,
        model=Mapping,
        task=Spec,
        optimizer=Spec,
        train=Mapping,
        pretrained=Mapping,
        finetune=Mapping,
    ),
    "data": Keys.exactly(
        source=Spec,
        root=str,
        image_size=int,
        global_batch_size=int,
        crop_fraction=float,
        on_bad_file=str,
        background=tuple[int, int, int],
        quick_decoding=bool,
        num_threads=int,
        num_workers=int,
    ),
    "augment": Keys.of(augmentation.build_train, given=("image_size",)),
    "mix": Keys.of(mixing.mix, given=("rng", "images")),
    "model": Keys.exactly(
        dtype=str, mean=tuple[float, float, float], std=tuple[float, float, float]
    ),
    "pretrained": Keys.exactly(path=str, recipe=str, parts=str | tuple[str, ...]),
    "finetune": Keys.exactly(
        freeze=str | tuple[str, ...],
        learning_rate_multipliers=str | tuple[str, ...],
        frozen_norm_steps=int,
    ),
    "train": Keys.exactly(
        total_steps=int | None,
        epochs=float | None,
        seed=int,
        evaluate_every_steps=int,
        log_every_steps=int,
        accumulation_steps=int,
        ema_decay=float,
        early_stopping_evaluations=int,
        keep_checkpoints=int,
        on_nonfinite_step=str,
    ),
}
"""Dict of a config that is no spec → its keys."""


def resolve(given: Given, workdir: str | None = None) -> Config:
    """Returns the config of this run, in which every key has an effect.

    If the command line chooses another `neck.name` than the file, the arguments that
    the new neck does not take are dropped, and a printed line names them. If the
    command line gives `train.total_steps`, the file's `train.epochs` is ignored.

    Args:
      given: The config of the file and the command line.
      workdir: Folder of the run. A run that has begun does not need its pretrained
        weights any more.

    Raises:
      InputError: A choice is unknown, a value is out of range, or the command line
        sets a key that has no effect.
    """
    resolved = copy.deepcopy(given.config.to_dict())
    overridden = given.overridden
    configs.check_keys(resolved, KEYS)
    for section, key in (("data", "root"), ("pretrained", "path")):
        resolved[section][key] = paths.expanded(resolved[section][key])
    for key, registry in REGISTRIES.items():
        parent, last = _parent(resolved, key)
        parent[last] = registry.spec(parent[last])
    configs.check_scale(resolved, MODEL_PARTS)
    _refuse_without_effect(resolved, overridden)
    _resolve_length(resolved["train"], overridden)
    _check_numbers(resolved["train"])
    notes = []
    for key, registry in REGISTRIES.items():
        notes += _drop_arguments(key, registry, resolved, overridden)
    notes += adopt_weights(resolved, overridden, workdir)
    _refuse_workdir_in_data(resolved["data"]["root"], workdir)
    for note in notes:
        print(note)
    return configs.load(resolved)


def _refuse_workdir_in_data(root: str, workdir: str | None) -> None:
    """Refuses a run inside of its data, where its folders would become classes."""
    if not root or workdir is None:
        return
    folder, data = Path(workdir).resolve(), Path(root).resolve()
    if folder == data or data in folder.parents:
        raise InputError(
            f"--workdir={workdir} is inside of data.root={root}; choose a folder "
            "outside of the data"
        )


def _parent(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *parents, last = key.split(".")
    for name in parents:
        config = config[name]
    return config, last


def _drop_arguments(
    key: str,
    registry: Registry,
    resolved: dict[str, Any],
    overridden: frozenset[str],
) -> list[str]:
    """Drops the file's arguments of a choice that the command line replaced."""
    parent, last = _parent(resolved, key)
    chosen = parent[last]
    accepted = registry.accepts(chosen["name"])
    if f"{key}.name" not in overridden:
        return []
    dropped = [name for name in chosen if name != "name" and name not in accepted]
    for name in dropped:
        others = any(name in registry.accepts(other) for other in registry.names())
        if f"{key}.{name}" in overridden and not others:
            kind = f"argument of {registry.kind} {chosen['name']!r}"
            raise errors.unknown(kind, name, sorted(accepted))
        because = f"{key}.name is {chosen['name']}"
        _refuse_set(overridden, f"{key}.{name}", because)
        del chosen[name]
    if not dropped:
        return []
    return [f"{key} {chosen['name']!r} does not take {', '.join(dropped)}: dropped"]


def _refuse_set(overridden: frozenset[str], prefix: str, because: str) -> None:
    for key in sorted(overridden):
        if key.startswith(prefix):
            raise InputError(f"--config.{key} has no effect, because {because}")


def _refuse_without_effect(
    resolved: Mapping[str, Any], overridden: frozenset[str]
) -> None:
    data, augment, mix = resolved["data"], resolved["augment"], resolved["mix"]
    drawn = data["source"]["name"] == "drawn"
    name = data["source"]["name"]
    if data["root"] and "root" not in SOURCES.accepts(name):
        because = "drawn data has no files" if drawn else f"{name!r} reads no folder"
        raise InputError(
            f"data.root is {data['root']!r}, but {because}; add "
            f"--config.data.source=folder or --config.data.source=tfds"
        )
    framing = tasks.REGISTRY.constructor(resolved["task"]["name"]).framing
    for key, without, because in (
        ("data.on_bad_file", drawn, "drawn data has no files"),
        ("data.background", drawn, "drawn data has no files"),
        ("data.crop_fraction", framing != "crop", "the task evaluates whole images"),
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


def _resolve_length(train: dict[str, Any], overridden: frozenset[str]) -> None:
    """Keeps one of `total_steps` and `epochs`: the one set on the command line."""
    keys = ("total_steps", "epochs")
    given = [key for key in keys if train[key] is not None]
    on_command_line = [key for key in given if f"train.{key}" in overridden]
    if len(given) == 2 and len(on_command_line) == 1:
        given = on_command_line
    if given == ["epochs"] and not train["epochs"] > 0:
        raise InputError(f"train.epochs is {train['epochs']}; it must be above 0")
    if len(given) != 1:
        raise InputError(
            f"train.total_steps is {train['total_steps']} and train.epochs is "
            f"{train['epochs']}; give exactly one of them"
        )
    for key in keys:
        if key not in given:
            train[key] = None


def _check_numbers(train: Mapping[str, Any]) -> None:
    errors.at_least("train.keep_checkpoints", train["keep_checkpoints"], 1)
    errors.at_least("train.accumulation_steps", train["accumulation_steps"], 1)
    errors.within("train.seed", train["seed"], 0, configs.MAX_INTEGER)
    errors.within("train.ema_decay", train["ema_decay"], 0, 1, open_high=True)


def adopt_weights(
    resolved: dict[str, Any], overridden: frozenset[str], workdir: str | None
) -> list[str]:
    """Sets the keys that the pretrained weights decide, unless the command line did.

    Args:
      resolved: The config, changed in place.
      overridden: Dotted keys that the command line set.
      workdir: Folder of the run, which may have begun already.

    Returns:
      A line of text for each key that changed.

    Raises:
      InputError: The command line sets a key that has no effect without weights, or
        the weights cannot be read or belong to another backbone.
    """
    path, notes = resolved["pretrained"]["path"], []
    _check_weight_keys(path, overridden)
    decided = _decided(resolved, workdir)
    backbone, stored_name = resolved["backbone"], decided.get("backbone.name")
    if stored_name not in (None, backbone["name"]):
        if "backbone.name" in overridden:
            raise InputError(
                f"backbone.name is {backbone['name']!r}, but the run in {path} has "
                f"{stored_name!r}; remove --config.backbone.name"
            )
        # The other arguments belong to the backbone of the config file.
        resolved["backbone"] = {
            key: value
            for key, value in backbone.items()
            if f"backbone.{key}" in overridden
        }
    native_size = backbones.build(backbone["name"]).native_size
    size = resolved["data"]["image_size"]
    if Path(path).is_file() and size != native_size:
        notes.append(
            f"data.image_size is {size}; the weights were trained at {native_size} px"
        )
    for key, value in decided.items():
        part, name = key.split(".")
        before = resolved[part].get(name)
        # Compare as JSON, in which a list equals a tuple.
        if key in overridden or json.dumps(before) == json.dumps(value):
            continue
        resolved[part][name] = value
        notes.append(
            f"{key} is {value!r}: set from the pretrained weights (override: "
            f"--config.{key})"
        )
    return notes


def _check_weight_keys(path: str, overridden: frozenset[str]) -> None:
    """Refuses `recipe` without a file of weights, and `parts` without a run."""
    for key, has_effect, wanted in (
        ("recipe", bool(path) and not Path(path).is_dir(), "a file"),
        ("parts", bool(path) and not Path(path).is_file(), "the workdir of a run"),
    ):
        if not has_effect and f"pretrained.{key}" in overridden:
            raise InputError(
                f"--config.pretrained.{key} has no effect: pretrained.path must be "
                f"{wanted}, but it is {path!r}"
            )


def _decided(config: Mapping[str, Any], workdir: str | None) -> dict[str, Any]:
    """Returns dotted key → value for the keys that the pretrained weights decide."""
    path, name = config["pretrained"]["path"], config["backbone"]["name"]
    if not path:
        return {}
    if workdir is not None and Workdir(workdir).is_begun():
        begun = Workdir(workdir).stored_config()
        if begun["pretrained"]["path"] == path:
            return _decided_by_run(begun)
    if not Path(path).exists():
        raise InputError(f"pretrained.path {path!r} does not exist")
    if Path(path).is_dir():
        return _decided_by_run(Workdir(path).stored_config())
    recipe = pretrained.preprocessing(name, config["pretrained"]["recipe"], path)
    given = {"model.mean": recipe.mean, "model.std": recipe.std}
    accepted = backbones.accepts(name)
    for key in ("padding", "epsilon"):
        if key in accepted and getattr(recipe, key) is not None:
            given[f"backbone.{key}"] = getattr(recipe, key)
    return given


def _decided_by_run(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns dotted key → value for the pixel statistics and backbone of a run."""
    decided = {f"model.{key}": stored["model"][key] for key in ("mean", "std")}
    return decided | {f"backbone.{key}": v for key, v in stored["backbone"].items()}
