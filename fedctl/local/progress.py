"""Progress of one run: a live display in a terminal, plain lines elsewhere."""

import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TextIO

from fedctl import terminal
from fedctl.report.rows import Row, frozen, idle, perplexity, saved, tested, uploaded, wire
from fedctl.report.summary import loss, megabytes, percent, seconds, unsure
from trainer.config.schema import Experiment

if TYPE_CHECKING:
    from rich.console import RenderableType


PAUSE_SECONDS = 1.0  # between two plain lines
STARTING, PREPARING = "starting the ranks ...", "preparing data ..."


class View(AbstractContextManager["View"]):
    """A view that shows nothing, for `--quiet`; the base of those that do."""

    def preparing(self, hint: str) -> None:
        """Show that no round has ended yet; `hint` is the newest line of a rank's log, if any."""

    def row(self, row: Row) -> None:
        """Show a round that has ended."""

    def notice(self, text: str) -> None:
        """Show a message at once."""

    def __exit__(self, *error: object) -> None:
        """Do nothing."""


def view(experiment: Experiment, quiet: bool, output: str) -> View:
    """Return the fitting view: none, live in a terminal, or plain; on stderr with JSON output."""
    if quiet:
        return View()
    if output == "json":
        return Plain(experiment, sys.stderr)
    return Live(experiment) if sys.stdout.isatty() else Plain(experiment, sys.stdout)


class Plain(View):
    """A line for an evaluation, at most one per second and always the last; for logs and pipes."""

    def __init__(self, experiment: Experiment, stream: TextIO) -> None:
        self._rounds = experiment.rounds
        self._stream = stream
        self._eta = Eta(experiment)
        self._doing = ""
        self._printed = -PAUSE_SECONDS
        self._unprinted: Row | None = None

    def preparing(self, hint: str) -> None:
        doing = PREPARING if hint else STARTING
        if doing != self._doing:
            self.notice(doing)
            self._doing = doing

    def row(self, row: Row) -> None:
        self._eta.row(row)
        if row.get("final"):  # a target may have ended the run early
            if self._unprinted:
                self._print(self._unprinted)
        elif tested(row):
            if time.monotonic() - self._printed < PAUSE_SECONDS and row["round"] < self._rounds:
                self._unprinted = row
            else:
                self._print(row)

    def _print(self, row: Row) -> None:
        self._printed, self._unprinted = time.monotonic(), None
        self.notice(
            f"round {row['round']}/{self._rounds}  accuracy {percent(row['test_accuracy_ratio'])}  "
            f"loss {loss(row['test_loss'])}  {_perplexity(row)}frozen {percent(frozen(row))}  "
            f"sent {megabytes(uploaded(row))} MB  wire {megabytes(wire(row))} MB  "
            f"saved {percent(saved(row))}  {_idle(row)}left {self._eta.text()}"
        )

    def notice(self, text: str) -> None:
        terminal.tell(text, self._stream)


def _perplexity(row: Row) -> str:
    found = perplexity(row)
    return "" if found is None else f"perplexity {unsure(found)}  "


class Live(View):
    """A progress bar and the newest numbers, redrawn in place."""

    def __init__(self, experiment: Experiment) -> None:
        from rich.live import Live as RichLive

        self._experiment = experiment
        self._eta = Eta(experiment)
        self._last: Row | None = None
        self._tests: list[Row] = []
        self._hint, self._notice = "", ""
        self._live = RichLive(
            get_renderable=self._picture,
            console=terminal.display(sys.stdout),
            refresh_per_second=4,
            transient=True,
        )

    def __enter__(self) -> "Live":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def preparing(self, hint: str) -> None:
        self._hint = terminal.plain(hint)

    def row(self, row: Row) -> None:
        self._eta.row(row)
        self._last = row
        if tested(row):
            self._tests.append(row)

    def notice(self, text: str) -> None:
        self._notice = terminal.plain(text)

    def _picture(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        title = Text.assemble(
            (self._experiment.name, "bold"),
            f"  {self._experiment.sizes()}",
        )
        parts: list[RenderableType] = [title]
        if self._last is None:
            self._spinner: Any = getattr(self, "_spinner", None) or Spinner("dots")
            doing = f"{PREPARING} {self._hint}" if self._hint else STARTING
            self._spinner.update(text=Text(doing, overflow="ellipsis", no_wrap=True))
            parts.append(self._spinner)
        else:
            total = self._experiment.rounds
            bar = Table.grid(padding=(0, 2))
            bar.add_row(
                f"round {self._last['round']:>{len(str(total))}}/{total}",
                ProgressBar(total=total, completed=self._last["round"], width=30),
                f"{seconds(self._eta.elapsed())}, left {self._eta.text()}",
            )
            parts += [bar, self._numbers(self._last)]
        if self._notice:
            parts.append(Text(self._notice, style="yellow"))
        return Group(*parts)

    def _numbers(self, row: Row) -> "RenderableType":
        from rich.text import Text

        accuracy, tested_loss = "–", "–"
        if self._tests:
            accuracy = percent(self._tests[-1]["test_accuracy_ratio"])
            tested_loss = loss(self._tests[-1]["test_loss"])
        found = perplexity(self._tests[-1]) if self._tests else None
        pairs = {
            "accuracy": accuracy,
            "loss": tested_loss,
            **({} if found is None else {"perplexity": unsure(found)}),
            "frozen": percent(frozen(row)),
            "sent": f"{megabytes(uploaded(row))} MB",
            "wire": f"{megabytes(wire(row))} MB",
            "saved": percent(saved(row)),
        }
        if shares := idle(row):
            pairs["idle"] = "{} (ideal {})".format(*map(percent, shares))
        return Text("  ").join(
            Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in pairs.items()
        )


def _idle(row: Row) -> str:
    shares = idle(row)
    return "idle {} (ideal {})  ".format(*map(percent, shares)) if shares else ""


class Eta:
    """The remaining time, from the pace of the rounds since the first one was seen.

    The pace is that of local steps, since rounds may grow; of rounds where steps are not planned.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._start = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._newest: tuple[int, float] = (0, self._start)

    def row(self, row: Row) -> None:
        self._newest = (self._work(row["round"]), time.monotonic())
        self._first = self._first or self._newest

    def elapsed(self) -> float:
        """Return the seconds since the run started."""
        return time.monotonic() - self._start

    def text(self) -> str:
        """Return the time left, or a dash while there is no pace."""
        if self._first is None or self._newest[0] <= self._first[0]:
            return "–"
        pace = (self._newest[1] - self._first[1]) / (self._newest[0] - self._first[0])
        due = self._newest[1] + pace * (self._work(self._experiment.rounds) - self._newest[0])
        return seconds(max(0.0, due - time.monotonic()))

    def _work(self, rounds: int) -> int:
        experiment = self._experiment
        steps = experiment.schedule.steps_until(rounds, experiment.optimizer.lr)
        return rounds if steps is None else steps
