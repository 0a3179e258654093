"""The exceptions whose text is what the user reads; any room may import them."""

import difflib
import numbers
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used; its text is the sentence they read.

    The command line prints the text alone and leaves with exit code 2. A text names
    the thing, its value and the choices.
    """


class RunError(Exception):
    """A run cannot go on, and not by a mistake in what the user gave.

    A full disk, a process that was killed: the command line prints the text alone and
    leaves with exit code 1. A text names the thing and says what is kept.
    """


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Returns the error for a name outside a closed set of choices.

    Args:
      kind: What is chosen, such as `"backbone"`.
      name: The value that was given.
      choices: Every value that would have been understood.

    Example:
      >>> print(unknown("backbone", "resnet19", ["resnet18", "vgg16"]))
      backbone 'resnet19' is unknown; did you mean 'resnet18'? Choose one of \
resnet18, vgg16
    """
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"did you mean {close[0]!r}? Choose" if close else "choose"
    return InputError(f"{kind} {name!r} is unknown; {hint} one of {', '.join(choices)}")


def at_least(name: str, value: object, least: float) -> None:
    """Refuses a number below a limit.

    Args:
      name: What the number is, such as `"data.num_workers"`.
      value: The number that was given.
      least: Smallest number allowed.

    Raises:
      InputError: The value is not a number, is NaN, or is too small.
    """
    if not isinstance(value, numbers.Real) or not value >= least:
        raise InputError(f"{name} is {value!r}; it must be at least {least}")


def within(
    name: str,
    value: object,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Refuses a number outside an interval.

    Args:
      name: What the number is, such as `"task.label_smoothing"`.
      value: The number that was given.
      low: Lower end of the interval.
      high: Upper end of the interval.
      open_low: Whether the lower end itself is refused.
      open_high: Whether the upper end itself is refused.

    Raises:
      InputError: The value is not a number, is NaN, or is outside the interval.
    """
    inside = isinstance(value, numbers.Real) and low <= value <= high
    if not inside or (open_low and value == low) or (open_high and value == high):
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise InputError(
            f"{name} is {value!r}; it must be in {left}{low}, {high}{right}"
        )


def one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuses a value outside a closed set of choices.

    Args:
      name: What the value is, such as `"data.on_bad_file"`.
      value: The value that was given.
      choices: Every value that is allowed.

    Raises:
      InputError: The value is none of the choices.
    """
    choices = tuple(choices)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise InputError(f"{name} is {value!r}; it must be one of {listed}")
