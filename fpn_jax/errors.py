"""The exceptions whose text is what the user reads; any room may import them."""

import difflib
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
