"""Tables in a terminal, and unlimited width in a pipe."""

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> "Console":
    """Return standard output for tables; brackets are text, since names and messages have them."""
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
    """Return a table; `right`: the indexes of right-aligned columns."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if index in right else "left"
        made.add_column(heading, justify=justify, overflow="fold", no_wrap=not wrap)
    for row in rows:
        made.add_row(*row)
    return made
