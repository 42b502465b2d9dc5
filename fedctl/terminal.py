"""Text and tables in a terminal, and unlimited width in a pipe.

Names, messages and logs come from files, pods and clusters: whatever is shown of them goes through
`plain`, so that they can neither move the cursor nor hide or reorder what fedctl itself prints.
"""

import contextlib
import os
import sys
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_CONTROLS = [
    *(code for code in range(0x20) if chr(code) not in "\n\t"),
    *range(0x7F, 0xA0),  # DEL, and the controls of Latin-1, of which some terminals act on 0x9B
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # order of writing
    *(0x2028, 0x2029),  # line breaks
    *range(0xD800, 0xE000),  # surrogates, of bytes that are not UTF-8: no stream can encode them
]
_ESCAPED = {code: f"\\u{code:04x}" for code in _CONTROLS}


def plain(text: str) -> str:
    """Return the text with characters that control a terminal as JSON and YAML escape them."""
    return text.translate(_ESCAPED)


UNWRITABLE = "the output cannot be written; the work continues"


def tell(text: str, stream: TextIO | None) -> None:
    """Print a line of progress; when nobody reads any more, continue in silence.

    A run must not end because `head` has seen enough: it has hours of work in it.
    """
    try:
        print(plain(text), file=stream, flush=True)
    except OSError:  # or its disk is full
        assert stream is not None
        # What is buffered, and all that follows, goes to where nobody reads either.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if stream is not sys.stderr:
            with contextlib.suppress(OSError):
                print(UNWRITABLE, file=sys.stderr, flush=True)


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
        made.add_column(plain(heading), justify=justify, overflow="fold", no_wrap=not wrap)
    for row in rows:
        made.add_row(*map(plain, row))
    return made
