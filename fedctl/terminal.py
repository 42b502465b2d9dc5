"""Text and tables in a terminal, and unlimited width in a pipe.

Names, messages and logs come from files, pods and clusters: whatever is shown of them goes through
`plain`, so that they can neither move the cursor nor hide or reorder what fedctl itself prints.
"""

import io
import os
import shutil
import sys
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

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


UNLIMITED = 1000  # columns of what is not a terminal
UNWRITABLE = "the output cannot be written; the work continues"


def tell(text: str, stream: TextIO | None) -> None:
    """Print a line of progress; when nobody reads any more, continue in silence.

    A run must not end because `head` has seen enough: it has hours of work in it.
    """
    try:
        print(plain(text), file=stream, flush=True)
    except OSError:  # or its disk is full
        assert stream is not None
        _lost(stream)


def _lost(stream: TextIO) -> None:
    """Silence a stream that cannot be written, and say so where that is still possible."""
    silence(stream)
    stderr = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # a live display has its own
    if stream is not stderr:
        try:
            print(UNWRITABLE, file=stderr, flush=True)
        except OSError:  # the same terminal, which was closed
            silence(stderr)


def silence(stream: TextIO) -> None:
    """Send what is buffered, and all that follows, to where nobody reads either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Lasting:
    """A stream for displays that redraw themselves; like `tell`, it outlives its reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _lost(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _lost(self._stream)


def display(stream: TextIO) -> "Console":
    """Return a console for a display that redraws itself, on a terminal that may be closed."""
    from rich.console import Console

    return Console(file=cast(TextIO, Lasting(stream)), highlight=False, markup=False)


def write_any_sign() -> None:
    """Spell out what standard output's encoding lacks, as standard error does already."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def width(most: int = UNLIMITED) -> int:
    """Return the columns for a text of lines of at most `most`: fewer if the terminal has fewer."""
    if sys.stdout is None or not sys.stdout.isatty():
        return most
    return max(20, min(most, shutil.get_terminal_size().columns))


def console() -> "Console":
    """Return standard output for tables; brackets are text, since names and messages have them."""
    from rich.console import Console

    made = Console(highlight=False, markup=False)
    if not made.is_terminal:
        made.width = UNLIMITED
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
