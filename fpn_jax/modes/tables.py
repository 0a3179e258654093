"""Tables of text, as the modes summary and list print them."""

import rich.console
import rich.table

WIDTH = 100
"""Columns of the output at most."""


def table(*columns: tuple[str, str], show_header: bool = True) -> rich.table.Table:
    """Returns an empty table.

    Args:
      *columns: Name and alignment (`left` or `right`) of each column.
      show_header: Whether the names are shown.
    """
    made = rich.table.Table(box=None, pad_edge=False, show_header=show_header)
    for name, justify in columns:
        made.add_column(name, justify=justify)
    return made


def console() -> rich.console.Console:
    """Returns a console without colours in text, `WIDTH` columns wide at most."""
    terminal = rich.console.Console(highlight=False)
    width = min(terminal.width, WIDTH) if terminal.is_terminal else WIDTH
    return rich.console.Console(highlight=False, markup=False, width=width)
