"""The table of a report: its columns, and its text for a terminal, CSV and Markdown."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedctl import terminal
from fedctl.report.groups import Group, Spread, base_bytes, numbers
from fedctl.report.rows import LINK_MBITS
from fedctl.report.summary import megabytes, notes, percent, seconds, text_of, unsure


@dataclass(frozen=True)
class Result:
    """A column of measured numbers: `key` in a run's summary, `text` formats it, then the unit."""

    heading: str
    key: str
    text: Callable[[float], str]
    unit: str = ""

    def cell(self, spread: Spread) -> str:
        """Return mean and standard deviation, the latter only if it is not zero when rounded."""
        if self.unit == " %" and spread.mean < -1:  # less than nothing saved: -300 % is 4x
            return f"{1 - spread.mean:,.3g}x as much"
        mean, std = self.text(spread.mean), self.text(spread.std)
        return (mean if std == self.text(0) else f"{mean} ± {std}") + self.unit


def _most(found: dict[str, Spread], name: str) -> float:
    """Return the largest value of a result in a group; 0 if it has none."""
    spread = found.get(RESULTS[name].key)
    return spread.most if spread else 0.0


def _share(value: float) -> str:
    return percent(value).removesuffix(" %")


def _count(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


RESULTS = {
    "accuracy": Result("accuracy", "test_accuracy_ratio", _share, " %"),
    "loss": Result("loss", "test_loss", "{:.3f}".format),
    "perplexity": Result("perplexity", "test_perplexity", unsure),
    "rounds": Result("rounds", "rounds", _count),
    "time": Result("time", "time_seconds", seconds),
    "link": Result(f"computed at {LINK_MBITS} Mbit/s", f"link_{LINK_MBITS}_seconds", seconds),
    "messages": Result("messages", "messages_total", _count),
    "federated": Result("federated time", "federated_time_seconds", seconds),
    "sent": Result("sent MB", "uploaded_bytes", megabytes),
    "wire": Result("wire MB", "wire_bytes", megabytes),
    "votes": Result("votes MB", "votes_bytes", megabytes),
    "saved": Result("saved", "saved_ratio", _share, " %"),
    "frozen": Result("frozen", "frozen_parameters_ratio", _share, " %"),
    "idle": Result("idle", "pipeline_idle_ratio", _share, " %"),
    "versus": Result("vs first", "saved_against_first_ratio", _share, " %"),
}
RUN, SEEDS = "run", "seeds"
NAMES = (RUN, SEEDS, *RESULTS)
DEFAULT = (
    RUN,
    "accuracy",
    "loss",
    "rounds",
    "time",
    "link",
    "sent",
    "wire",
    "votes",
    "saved",
    "frozen",
)

# Below the table in a terminal; the footnote of the page has more.
NOTE = "sent and saved include the last reconciliation; wire is all that ranks exchanged, tests too"

# zero throughout unless a policy leaves parameters out; missing on one rank
SOMETIMES = ("votes", "frozen", "link")

Columns = Sequence[tuple[str, str]]  # heading (empty: the usual one), and a name above or a setting


@dataclass(frozen=True)
class Table:
    """A table with a row for each group."""

    groups: list[Group]
    columns: Columns = ()

    def _columns(self, *, every: bool = False) -> list[tuple[str, str]]:
        """Return headings and names: those asked for, else all (`every`), or all but empty ones."""
        found = [numbers(group, None) for group in self.groups]
        names = [
            name
            for name in DEFAULT
            if every or name not in SOMETIMES or any(_most(row, name) for row in found)
        ]
        if any(group.language for group in self.groups):
            names.insert(names.index("loss") + 1, "perplexity")
        if any(len(group.runs) > 1 for group in self.groups):
            names.insert(1, SEEDS)
        if len(self.groups) > 1:
            names.append("versus")
        columns = list(self.columns) or [("", name) for name in names]
        return [(heading or _heading(name), name) for heading, name in columns]

    def cells(self) -> list[dict[str, str]]:
        """Return for each group its formatted cells, by heading."""
        base = base_bytes(self.groups)
        return [
            {heading: _cell(group, name, found) for heading, name in self._columns()}
            for group, found in ((group, numbers(group, base)) for group in self.groups)
        ]

    def csv(self) -> str:
        """Return plain numbers for programs, each mean with its standard deviation."""
        base, text = base_bytes(self.groups), io.StringIO()
        several = any(len(group.runs) > 1 for group in self.groups)
        rows = []
        for group in self.groups:
            found, row = numbers(group, base), {}
            for heading, name in self._columns(every=True):  # the same for every program
                if name not in RESULTS:
                    row[heading] = _cell(group, name, found)
                    continue
                if heading == RESULTS[name].heading:  # the usual one, whose unit is of the text
                    heading = RESULTS[name].key
                spread = found.get(RESULTS[name].key)
                row[heading] = "" if spread is None else spread.mean
                if several:
                    row[f"{heading} std"] = "" if spread is None else spread.std
            rows.append(row)
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def markdown(self) -> str:
        """Return the table for documents."""
        cells = self.cells()
        lines = [list(cells[0]), ["---", *["---:"] * (len(cells[0]) - 1)]]
        lines += [[text.replace("|", "\\|") for text in row.values()] for row in cells]
        told = [f"\n{line}\n" for line in self.notes()]
        return "".join([*(f"| {' | '.join(line)} |\n" for line in lines), *told])

    def notes(self) -> list[str]:
        """Return what a reader should know of single runs, a line each."""
        return [line for group in self.groups for run in group.runs for line in notes(run)]


def _heading(name: str) -> str:
    return RESULTS[name].heading if name in RESULTS else name


def _cell(group: Group, name: str, found: dict[str, Spread]) -> str:
    if name == RUN:
        return group.label
    if name == SEEDS:
        return str(len(group.runs))
    if name in RESULTS:
        result = RESULTS[name]
        if result.key not in found:  # nothing to compare with
            return "–"
        unfinished = "" if group.finished or name != "rounds" else " (unfinished)"
        return result.cell(found[result.key]) + unfinished
    values = [text_of(setting(run.experiment, name)) for run in group.runs]
    return ", ".join(dict.fromkeys(values))


def setting(experiment: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key, list items by index; for a section, its name."""
    value: Any = experiment
    for part in key.split("."):
        if isinstance(value, list):
            value = value[int(part)] if part.isdigit() and int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value.get("name") if isinstance(value, dict) else value


def as_dict(group: Group, groups: list[Group]) -> dict[str, Any]:
    """Return a group's numbers as JSON output."""
    found = numbers(group, base_bytes(groups))
    spreads = {
        key: {"mean": s.mean, "std": s.std, "min": s.least, "max": s.most}
        for key, s in found.items()
    }
    return {"group": group.label, "seeds": group.seeds, "finished": group.finished, **spreads}


def show(rows: list[dict[str, str]]) -> None:
    """Print a line for each run, or a column for each if lines would be too wide."""
    console = terminal.console()
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sum(widths) + 2 * len(widths) > console.width:
        lines = [list(line) for line in zip(*lines, strict=True)]
    console.print(terminal.grid(lines[0], lines[1:], right=range(1, len(lines[0]))))
