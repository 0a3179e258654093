"""Checks that a task, its head and its view fit together, from shapes alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.data.records import FIELDS, SourceInfo
from fpn_jax.errors import InputError, one_of
from fpn_jax.tasks.base import Task
from fpn_jax.views import VIEWS

FRAMINGS = ("crop", "letterbox")
"""How evaluation can fit an image to the input of the network."""
RESERVED = frozenset({"index", "weight"})
"""Rows that evaluation adds to those that a task keeps."""


def check(
    name: str,
    task: Task,
    predictions: Any,
    image_size: tuple[int, int],
    info: SourceInfo,
) -> None:
    """Refuses a task that a training could not use to its end.

    Args:
      name: Name of the task, for error messages.
      task: The task.
      predictions: Shapes of what the head returns for one image.
      image_size: Height and width of the network's input, in pixels.
      info: What the source says about its records.

    Raises:
      InputError: The head lacks a key that the task reads, a loss is not one floating
        number an example, a package that the summary needs is not installed, the
        monitor is not in the metrics, the view or the framing is unknown, the view
        lacks a key of an answer or of the rows that are kept, or a row has a reserved
        name.
    """
    one_of(f"kind of task {name!r}", task.kind, VIEWS)
    one_of(f"framing of task {name!r}", task.framing, FRAMINGS)
    if not isinstance(predictions, dict):
        raise InputError("the head must return a dict of predictions")
    _require(f"task {name!r} reads", task.reads, "the head returns", predictions)
    batch = _batch(task, image_size, info)

    def traced(what: str, function: Callable, *arguments: Any) -> Any:
        try:
            return jax.eval_shape(function, *arguments)
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"task {name!r}: {what} fails ({reason})") from error

    losses = traced("losses", task.losses, predictions, batch)
    if not isinstance(losses, dict) or not losses:
        raise InputError(f"task {name!r}: losses must return a dict of name → [B]")
    for key, loss in losses.items():
        if loss.shape != (1,) or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise InputError(
                f"task {name!r}: for a batch of one, the loss {key!r} is {loss.dtype} "
                f"{list(loss.shape)}; it must be one floating number an example, [1]"
            )
    metrics = traced("metrics", task.metrics, predictions, batch)
    answer = traced("decode", lambda p: task.decode(p, image_size), predictions)
    rows = traced("keep", task.keep, answer, batch)
    # A package that the summary needs must be there before the training begins.
    example = {key: np.zeros(row.shape, row.dtype) for key, row in rows.items()}
    summary = task.summarize(example | {"index": np.zeros(1, np.int32)})
    if task.monitor not in {**metrics, **summary}:
        raise InputError(
            f"task {name!r} monitors {task.monitor!r}, but its metrics are "
            f"{', '.join([*metrics, *summary])}"
        )
    reserved = sorted(RESERVED & set(rows))
    if reserved:
        raise InputError(
            f"task {name!r} keeps {', '.join(reserved)}, which evaluation adds itself; "
            "give it another name"
        )
    view = VIEWS[task.kind]
    shown = f"the view {task.kind!r} needs"
    _require(shown, view.answers, f"task {name!r} answers", answer)
    _require(shown, view.keeps, f"task {name!r} keeps", rows)
    _require(f"task {name!r} exports", set(task.exports), "it answers", answer)


def _require(who: str, needed: frozenset[str], whom: str, given: Any) -> None:
    missing = ", ".join(sorted(set(needed) - set(given)))
    if missing:
        there = ", ".join(given) or "nothing"
        raise InputError(f"{who} {missing}, but {whom} only {there}")


def _batch(
    task: Task, image_size: tuple[int, int], info: SourceInfo
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch of one example."""
    axes = dict(zip("HW", image_size, strict=True))
    axes |= {"N": task.max_boxes, "K": len(info.landmark_names)}
    shapes = {
        "image": ((*image_size, 3), "uint8"),
        "weight": ((), "float32"),
        "index": ((), "int32"),
    }
    for name in task.needs:
        shape = tuple(axes.get(axis, axis) for axis in FIELDS[name].shape)
        shapes[name] = shape, FIELDS[name].dtype
    return {
        name: jax.ShapeDtypeStruct((1, *shape), dtype)
        for name, (shape, dtype) in shapes.items()
    }
