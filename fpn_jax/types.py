"""Whether a value of a config has the type that an annotation asks for."""

import numbers
import types
import typing
from typing import Any

from fpn_jax.errors import InputError

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    type(None): "None",
}


def check(name: str, value: Any, annotation: Any) -> None:
    """Refuses a value of another type than a constructor's annotation.

    Whole numbers are numbers, and a list does where a tuple is expected, because JSON
    has only lists. Annotations other than int, float, bool, str, None, and tuples and
    unions of these allow any value.

    Args:
      name: What the value is, such as `"train.epochs"`.
      value: The value that was given.
      annotation: A type, as an annotation has it.

    Raises:
      InputError: The value has another type; the text says which types are expected.

    Example:
      >>> check("levels", 5, tuple[int, ...] | None)
      Traceback (most recent call last):
      fpn_jax.errors.InputError: levels is 5; it must be whole numbers in a tuple, \
or None
    """
    if not _fits(value, annotation):
        raise InputError(f"{name} is {value!r}; it must be {_words(annotation)}")


def _options(annotation: Any) -> tuple[Any, ...]:
    """Returns the types of a union, or the type itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _items(annotation: Any, count: int) -> tuple[Any, ...]:
    """Returns the type of each of `count` items of a tuple."""
    items = typing.get_args(annotation)
    return (items[0],) * count if items[1:] == (...,) else items


def _fits(value: Any, annotation: Any) -> bool:
    options = _options(annotation)
    if len(options) > 1:
        return any(_fits(value, option) for option in options)
    if typing.get_origin(annotation) is tuple:
        if not isinstance(value, list | tuple):
            return False
        items = _items(annotation, len(value))
        fits = len(items) == len(value)
        return fits and all(map(_fits, value, items))
    if annotation in (int, float):
        kind = numbers.Integral if annotation is int else numbers.Real
        # `True` is an int in Python, but not a number that a user means.
        return isinstance(value, kind) and not isinstance(value, bool)
    if annotation in (None, *_WORDS):
        return isinstance(value, annotation or type(None))
    return True


def _words(annotation: Any) -> str:
    options = _options(annotation)
    if len(options) > 1:
        return ", or ".join(map(_words, options))
    if typing.get_origin(annotation) is tuple:
        items = typing.get_args(annotation)
        plural = {int: "whole numbers", float: "numbers", str: "texts"}
        kind = plural.get(items[0], "values")
        count = "" if items[1:] == (...,) else f"{len(items)} "
        return f"{count}{kind} in a tuple"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
