"""The source, the task and the model that a config names, built and checked."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fpn_jax.config import Config
from fpn_jax.data import pipeline
from fpn_jax.data.records import SPLITS, Source, SourceInfo
from fpn_jax.errors import InputError, one_of
from fpn_jax.model import PARTS, PyramidModel, check_image_size
from fpn_jax.resolve import REGISTRIES, SOURCES
from fpn_jax.tasks.base import Task
from fpn_jax.train import steps

DTYPES = ("float32", "bfloat16")


def source(
    config: Config,
    split: str,
    *,
    encoded: bool = False,
    model_classes: Sequence[str] | None = None,
) -> Source:
    """Returns the records of one split.

    Args:
      config: A resolved config, which names the source.
      split: `train`, `validate` or `test`.
      encoded: Whether JPEGs may stay encoded, so that a random crop decodes only what
        it needs.
      model_classes: Names of the classes of a model, of which a split to evaluate may
        lack some; None takes those of the data.

    Raises:
      InputError: The split or its files do not exist. The text names those that do.
    """
    one_of("split", split, SPLITS)
    data = config.data
    given = {
        "split": split,
        "root": data.root,
        "image_size": data.image_size,
        "background": data.background,
        "encoded": encoded,
        "model_classes": model_classes,
    }
    return SOURCES.build(data.source.to_dict(), given)


def takes_root(config: Config) -> bool:
    """Returns whether the source of a config reads a folder, `data.root`."""
    return "root" in SOURCES.accepts(config.data.source.name)


def read_options(config: Config) -> pipeline.Options:
    """Returns the options with which this process reads records."""
    return pipeline.Options(
        on_bad_file=config.data.on_bad_file,
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def build_task(config: Config, info: SourceInfo) -> Task:
    """Returns the task that the config names.

    Args:
      config: A resolved config.
      info: Classes, fields and landmarks of the data.

    Raises:
      InputError: A value is invalid, the data lack a field that the task needs, or the
        head does not return the outputs that the task reads.
    """
    spec, head = config.task.to_dict(), config.head.name
    given = {
        "num_classes": len(info.classes),
        "num_landmarks": len(info.landmark_names),
        "mirrored": info.mirrored,
        "num_mask_classes": len(info.mask_classes),
    }
    if "cell_offset" in REGISTRIES["task"].accepts(spec["name"]):
        given["cell_offset"] = _cell_offset(config)
    task = REGISTRIES["task"].build(spec, given)
    missing = sorted(task.needs - set(info.fields))
    if missing:
        raise InputError(
            f"task {spec['name']!r} needs {', '.join(missing)}, but data.source "
            f"{config.data.source.name!r} has only {', '.join(sorted(info.fields))}"
        )
    outputs = _outputs(PARTS["head"].constructor(head))
    if not task.reads <= outputs:
        raise InputError(
            f"task {spec['name']!r} reads {', '.join(sorted(task.reads))}, but head "
            f"{head!r} returns {', '.join(sorted(outputs))}; choose another head.name"
        )
    return task


def _cell_offset(config: Config) -> dict[int, tuple[float, float]]:
    """Returns level → centre of the first cell, `(y, x)` in pixels, of the backbone."""
    backbone = PARTS["backbone"].build(config.backbone.to_dict(), {})
    size = config.data.image_size
    return backbone.cell_offset((size, size))


def _outputs(head: Any) -> frozenset[str]:
    return getattr(head, "func", head).outputs


def build_model(config: Config, task: Task) -> PyramidModel:
    """Returns the model that the config names.

    Args:
      config: A resolved config.
      task: The task, which sets the size of the head.

    Raises:
      InputError: A name, an argument or a value is invalid.
    """
    one_of("model.dtype", config.model.dtype, DTYPES)
    given = {"dtype": jnp.dtype(config.model.dtype), "axis_name": steps.AXIS}
    given |= task.head_arguments()
    parts = {
        part: registry.build(config[part].to_dict(), given)
        for part, registry in PARTS.items()
    }
    model = PyramidModel(**parts, mean=config.model.mean, std=config.model.std)
    size = config.data.image_size
    check_image_size((size, size), model.backbone.levels, model.neck.num_scales)
    return model
