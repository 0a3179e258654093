"""The HTML templates of a report: autoescaped, with one way to write numbers."""

import math
import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape


def load(path: Path) -> jinja2.Template:
    """Returns a template whose values are escaped.

    A call of one of its macros, `load(path).module.NAME(…)`, returns trusted `Markup`.
    The template may use the functions of this module, `percent`, `count`, `counted`
    and `breakable`, as filters. A value that is not given is an error.

    Args:
      path: The `.html` file; it may include files of its folder.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (percent, count, counted, breakable):
        environment.filters[function.__name__] = function
    return environment.get_template(path.name)


def percent(share: float, digits: int = 1) -> str:
    """Returns a share in per cent, or a dash if it is not finite.

    Args:
      share: 0 to 1.
      digits: Number of digits after the point.

    Example:
      >>> percent(0.976), percent(0.5, 2), percent(float("nan"))
      ('97.6\\xa0%', '50.00\\xa0%', '–')
    """
    return f"{100 * share:.{digits}f}\u00a0%" if math.isfinite(share) else "–"


def count(number: int) -> str:
    """Returns a number with its thousands apart.

    Example:
      >>> count(12345)
      '12,345'
    """
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, in the plural unless the number is 1.

    Args:
      number: 0 or more.
      noun: A noun whose plural ends in `s`.

    Example:
      >>> counted(1, "image"), counted(1000, "image")
      ('1 image', '1,000 images')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def breakable(name: str) -> Markup:
    """Returns a path or a name, escaped, with line breaks allowed after `/` and `_`.

    Example:
      >>> breakable("a_b/<c>.jpg")
      Markup('a_<wbr>b/<wbr>&lt;c&gt;.jpg')
    """
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(name))))
