"""Owns how a table looks in a terminal, and that a pipe has no edge to wrap at."""

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> "Console":
    """Standard output, for tables; what is in brackets is text: names and messages are others'."""
    from rich.console import Console

    made = Console(highlight=False, markup=False)
    if not made.is_terminal:
        made.width = 1000
    return made


def grid(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Container[int],
    wrap: bool = True,
) -> "Table":
    """A table; `right`: the columns, by number, whose cells are at the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if index in right else "left"
        made.add_column(heading, justify=justify, overflow="fold", no_wrap=not wrap)
    for row in rows:
        made.add_row(*row)
    return made
