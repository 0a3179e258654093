"""Text tables of the modes summary and list."""

import rich.console
import rich.table

WIDTH = 100
"""Maximum width of the output, in characters."""


def table(*columns: tuple[str, str], show_header: bool = True) -> rich.table.Table:
    """Returns an empty table.

    Args:
      *columns: Name and alignment (`left` or `right`) of each column.
      show_header: Whether the names are shown.
    """
    empty = rich.table.Table(box=None, pad_edge=False, show_header=show_header)
    for name, justify in columns:
        empty.add_column(name, justify=justify)
    return empty


def console() -> rich.console.Console:
    """Returns a console that does not highlight text and is at most `WIDTH` wide."""
    terminal = rich.console.Console(highlight=False)
    width = min(terminal.width, WIDTH) if terminal.is_terminal else WIDTH
    return rich.console.Console(highlight=False, markup=False, width=width)
