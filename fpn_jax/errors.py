"""Exceptions whose text the user reads, and the checks that raise them."""

import difflib
import math
import numbers
from collections.abc import Iterable


class InputError(ValueError):
    """A value that the user gave cannot be used.

    The command line prints the text alone and exits with code 2. The text names the
    thing, its value and the choices.
    """


class RunError(Exception):
    """A run cannot continue, and the cause is not a mistake of the user.

    Examples are a full disk and a killed process. The command line prints the text
    alone and exits with code 1. The text names the thing and says what is kept.
    """


def unknown(kind: str, name: object, choices: Iterable[object]) -> InputError:
    """Returns the error for a name outside a closed set of choices.

    Args:
      kind: What is chosen, such as `"backbone"`.
      name: The value that was given.
      choices: Every value that is allowed.

    Example:
      >>> print(unknown("backbone", "resnet19", ["resnet18", "vgg16"]))
      backbone 'resnet19' is unknown; did you mean 'resnet18'? Choose one of \
resnet18, vgg16
    """
    words = [str(choice) for choice in choices]
    # Numbers with similar digits are no typing errors.
    close = isinstance(name, str) and difflib.get_close_matches(name, words, n=1)
    hint = f"did you mean {close[0]!r}? Choose" if close else "choose"
    return InputError(f"{kind} {name!r} is unknown; {hint} one of {', '.join(words)}")


def one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuses a value outside a closed set of choices.

    Args:
      name: What is chosen, such as `"norm"` or a config's key.
      value: The value that was given.
      choices: Every value that is allowed.

    Raises:
      InputError: The value is none of the choices; see `unknown`.
    """
    choices = list(choices)
    if value not in choices:
        raise unknown(name, value, choices)


def at_least(name: str, value: object, least: float, *, whole: bool = False) -> None:
    """Refuses a value below a bound.

    Args:
      name: What the value is, such as `"width"` or a config's key.
      value: The value that was given.
      least: Smallest allowed value.
      whole: Whether the value must be an integer.

    Raises:
      InputError: The value is no number, is NaN, is below `least`, or is no integer
        where `whole` asks for one.

    Example:
      >>> at_least("width", 0, 1, whole=True)
      Traceback (most recent call last):
      fpn_jax.errors.InputError: width is 0; it must be a whole number of at least 1
    """
    kind = numbers.Integral if whole else numbers.Real
    if not (_is_number(value, kind) and value >= least):
        amount = "a whole number of at least" if whole else "at least"
        raise InputError(f"{name} is {value!r}; it must be {amount} {least}")


def within(
    name: str,
    value: object,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Refuses a value outside an interval.

    Args:
      name: What the value is, such as `"dropout"` or a config's key.
      value: The value that was given.
      low: Lower bound.
      high: Upper bound; `math.inf` for none.
      open_low: Whether the value must be above `low`, not equal to it.
      open_high: Whether the value must be below `high`, not equal to it; with
        `math.inf`, whether the value must be finite.

    Raises:
      InputError: The value is no number, is NaN, or is outside the interval.

    Example:
      >>> within("dropout", 1.0, 0, 1, open_high=True)
      Traceback (most recent call last):
      fpn_jax.errors.InputError: dropout is 1.0; it must be in [0, 1)
    """
    if (
        _is_number(value, numbers.Real)
        and (low < value if open_low else low <= value)
        and (value < high if open_high else value <= high)
    ):
        return
    if high == math.inf:
        allowed = f"{'above' if open_low else 'at least'} {low}"
        allowed += " and finite" if open_high else ""
    else:
        allowed = f"in {'(' if open_low else '['}{low}, {high}"
        allowed += ")" if open_high else "]"
    raise InputError(f"{name} is {value!r}; it must be {allowed}")


def _is_number(value: object, kind: type) -> bool:
    # `True` is an int in Python, but not a number that a user means.
    return isinstance(value, kind) and not isinstance(value, bool)
