"""Progress of a sweep: all its runs in one live display, or in plain lines.

Nothing here runs on its own: the loop that watches the runs calls `refresh`. A thread that redraws
would interfere with the forks that start new ranks.
"""

import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TextIO

from fedctl import terminal
from fedctl.local.progress import PREPARING, STARTING, View
from fedctl.report.rows import Row, tested, uploaded
from fedctl.report.summary import megabytes, score, seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

STATUS_SECONDS = 5.0  # between two plain lines about the progress of all runs
REDRAW_SECONDS = 0.25


class Line(View):
    """What is known of one active run."""

    def __init__(self, name: str, rounds: int, start: int) -> None:
        self.name, self.rounds, self.start = name, rounds, start
        self.round = start
        self.doing = STARTING
        self.last_test: Row | None = None

    def preparing(self, hint: str) -> None:
        self.doing = PREPARING if hint else STARTING

    def row(self, row: Row) -> None:
        self.round, self.doing = row["round"], ""
        if tested(row):
            self.last_test = row

    @property
    def score(self) -> str:
        """The newest accuracy or perplexity, for people."""
        return score(self.last_test) if self.last_test else "accuracy –"


class Overview(AbstractContextManager["Overview"]):
    """All runs of a sweep; this class counts, its subclasses show."""

    def __init__(self, runs: int, rounds: int) -> None:
        self.runs, self.ended = runs, 0
        self.active: list[Line] = []
        self._rounds, self._rounds_of_ended = rounds, 0
        self._start = time.monotonic()

    def started(self, name: str, rounds: int, start: int) -> Line:
        """Add a run that begins after round `start`; return the line that takes its rows."""
        self.active.append(line := Line(name, rounds, start))
        return line

    def finished(self, line: Line, problem: str = "") -> None:
        """Remove a run that has ended, successfully if there is no problem."""
        self.active.remove(line)
        self._rounds_of_ended += line.rounds - line.start
        self.ended += 1
        outcome = problem
        if not problem and line.last_test:
            sent = megabytes(uploaded(line.last_test))
            outcome = f"{line.score} after {line.round} rounds, sent {sent} MB"
        self.notice(f"{self.ended}/{self.runs}  {line.name}: {outcome}")

    def notice(self, text: str) -> None:
        """Show a message at once."""

    def refresh(self) -> None:
        """Show what is new, if it is time."""

    def __exit__(self, *error: object) -> None:
        """Do nothing."""

    def share(self) -> float:
        """Return the share of all rounds that is done."""
        done = self._rounds_of_ended + sum(line.round - line.start for line in self.active)
        return min(1.0, done / self._rounds) if self._rounds else 1.0

    def times(self) -> str:
        """Return the time spent and, from the pace so far, the time left."""
        spent, share = time.monotonic() - self._start, self.share()
        left = seconds(spent * (1 - share) / share) if share else "–"
        return f"{seconds(spent)}, left {left}"


def overview(runs: int, rounds: int, output: str) -> Overview:
    """Return the fitting overview: live in a terminal, else plain; on stderr with JSON output."""
    if output == "json":
        return Plain(runs, rounds, sys.stderr)
    return Live(runs, rounds) if sys.stdout.isatty() else Plain(runs, rounds, sys.stdout)


class Plain(Overview):
    """A line for each run that ends, and from time to time one for those that are active."""

    def __init__(self, runs: int, rounds: int, stream: TextIO) -> None:
        super().__init__(runs, rounds)
        self._stream = stream
        self._printed = time.monotonic()

    def notice(self, text: str) -> None:
        self._printed = time.monotonic()
        terminal.tell(text, self._stream)

    def refresh(self) -> None:
        if time.monotonic() - self._printed < STATUS_SECONDS:
            return
        lines = [
            f"{line.name} " + (line.doing or f"{line.round}/{line.rounds} {line.score}")
            for line in self.active
        ]
        self.notice(f"{self.ended}/{self.runs}  {self.times()}  {'; '.join(lines)}")


class Live(Overview):
    """A bar for all, and a bar with the newest accuracy for each active run, redrawn in place."""

    def __init__(self, runs: int, rounds: int) -> None:
        from rich.live import Live as RichLive

        super().__init__(runs, rounds)
        self._drawn = 0.0
        self._live = RichLive(
            get_renderable=self._picture,
            console=terminal.display(sys.stdout),
            auto_refresh=False,
            transient=True,
        )

    def __enter__(self) -> "Live":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def notice(self, text: str) -> None:
        self._live.console.print(terminal.plain(text))  # stays, above the picture

    def refresh(self) -> None:
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._drawn = time.monotonic()
            self._live.refresh()

    def _picture(self) -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(overflow="ellipsis", no_wrap=True, max_width=48)
        grid.add_row(
            Text(f"{self.ended}/{self.runs} runs", style="bold"),
            ProgressBar(total=1.0, completed=self.share(), width=30),
            self.times(),
        )
        for line in self.active:
            width = len(str(line.rounds))
            doing = line.doing or f"{line.round:>{width}}/{line.rounds}  {line.score}"
            grid.add_row(
                Text(terminal.plain(line.name)),
                ProgressBar(total=line.rounds, completed=line.round, width=30),
                Text(terminal.plain(doing)),
            )
        return grid
