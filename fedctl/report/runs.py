"""Reading of a run folder: its experiment, its rows of metrics, the records of its ranks.

The only module that knows the names of the files in it. Needs neither pydantic nor torch.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedctl.errors import UserError
from fedctl.report import history
from fedctl.report.history import Change
from fedctl.report.rows import Row, parse, tested
from fedctl.terminal import plain
from trainer import manifest
from trainer.config import documents
from trainer.config.errors import ConfigError
from trainer.files import not_a_file, not_regular, open_regular

EXPERIMENT, METRICS = manifest.EXPERIMENT, manifest.METRICS
MODEL = manifest.MODEL
NEXT = ".resumed.json"  # the experiment as it goes on; the trainer makes it the run's own
REPORT_PAGE = "report.html"
REPORT_PICTURE = "report.png"
MOST_BYTES = 1 << 30  # of metrics.jsonl: half a million rows and more
LONGEST_LABEL = 100  # characters, as of a sweep's folders
TABLE_CSV, TABLE_MARKDOWN = "table.csv", "table.md"


def log_of(folder: Path, rank: int) -> Path:
    """Return the log file of a rank."""
    return folder / "logs" / f"rank-{rank}.log"


def output_log(folder: Path) -> Path:
    """Return the file with all that the ranks have printed, Python's own errors among it."""
    return folder / "logs" / "output.log"


# ---------------------------------------------------------------------------------------------
# a run that has rows


@dataclass(frozen=True)
class Run:
    """One run; `rows` by round, `final` of the reconciled model (unfinished: the last test).

    bad: the numbers of the lines in metrics.jsonl that are no rows, and were left out.
    """

    folder: Path
    label: str
    experiment: dict[str, Any]
    rows: list[Row]
    final: Row
    finished: bool
    bad: tuple[int, ...] = ()
    changes: tuple[Change, ...] = ()  # settings that were others in its first rounds
    advice: str = ""  # what its ranks found out about it, for whoever runs it again

    @property
    def tests(self) -> list[Row]:
        """The rows with an evaluation, including the reconciled model's."""
        rows = [row for row in self.rows if tested(row)]
        return [*rows, self.final] if self.finished else rows

    @property
    def notice(self) -> str:
        """What its reader should know of it; empty if there is nothing."""
        if not self.bad:
            return ""
        where = f"{self.folder / METRICS}: line {self.bad[0]}"
        if len(self.bad) == 1:
            return f"{where} is not a row of metrics, and was left out"
        return f"{where} and {len(self.bad) - 1} more are not rows of metrics, and were left out"


def read(folder: Path, label: str = "") -> Run:
    """Read the run in `folder`; raise a UserError if it cannot be read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    if odd := not_a_file(folder):
        raise UserError(f"{odd}: {not_regular(odd)}")
    experiment = _experiment(folder)
    rows, final, bad = _rows(folder)
    if not any(map(tested, rows)):
        raise UserError(f"{folder}: incomplete, no round was evaluated yet")
    return Run(
        folder=folder,
        label=label_of(label or experiment["name"]),
        experiment=experiment,
        rows=rows,
        final=final or next(row for row in reversed(rows) if tested(row)),
        finished=final is not None,
        bad=tuple(bad),
        changes=history.read(folder, rows[-1]["round"]),
        advice=plain(first.advice) if final and (first := first_rank(folder)) else "",
    )


def read_all(folders: list[Path]) -> list[Run]:
    """Read several runs; label those of the same name by their folders."""
    runs = [read(folder) for folder in folders]
    names = [run.label for run in runs]
    doubled = {name for name in names if names.count(name) > 1}
    return [
        read(run.folder, run.folder.resolve().name) if run.label in doubled else run for run in runs
    ]


def label_of(name: str) -> str:
    """Return a name as all parts of a report can show it: figures, tables and the page."""
    name = plain(" ".join(name.split()))
    return name if len(name) <= LONGEST_LABEL else f"{name[:LONGEST_LABEL]}..."


def expand(folders: list[Path]) -> list[Path]:
    """Replace a folder that is not itself a run, such as a sweep's, by the runs in it."""
    found = []
    for folder in folders:
        within = sorted(path.parent for path in folder.glob(f"*/{EXPERIMENT}"))
        found += [folder] if (folder / EXPERIMENT).exists() or not within else within
    return found


def _experiment(folder: Path) -> dict[str, Any]:
    path = folder / EXPERIMENT
    if not os.path.lexists(path):
        raise UserError(f"{folder}: not a run folder, it has no {EXPERIMENT}")
    try:
        experiment = documents.read(path)
    except ConfigError as error:
        raise UserError(str(error)) from None
    if not isinstance(experiment, dict) or not isinstance(experiment.get("name"), str):
        raise UserError(f"{path}: is not the experiment of a run: it has no name")
    for key in ("rounds", "ranks", "seed"):
        if type(experiment.get(key)) is not int:
            raise UserError(f"{path}: is not the experiment of a run: {key} is not a whole number")
    return experiment


def _rows(folder: Path) -> tuple[list[Row], Row | None, list[int]]:
    """Return the rows by round, the final one, and the numbers of lines that are no rows.

    Rounds that were repeated after a resume count once. A damaged line costs its own row only.
    """
    try:
        with open_regular(folder / METRICS) as file:
            lines = file.read(MOST_BYTES + 1).split(b"\n")
            if file.tell() > MOST_BYTES:
                raise UserError(f"{folder / METRICS}: is larger than {MOST_BYTES >> 30} GiB")
    except FileNotFoundError:
        raise UserError(f"{folder}: incomplete, it has no {METRICS} yet") from None
    except OSError as error:
        raise UserError(f"{folder / METRICS}: cannot be read: {error.strerror}") from None
    by_round: dict[int, Row] = {}
    final: Row | None = None
    bad: list[int] = []
    for number, line in enumerate(lines[:-1], start=1):  # the last: being written, or cut by a kill
        row = parse(line)
        if row is None:
            bad.append(number)
        elif row.get("final"):
            final = row
        else:
            by_round[row["round"]] = row
    if bad and not by_round:
        raise UserError(f"{folder / METRICS}: line {bad[0]} is not a row of metrics")
    return [by_round[number] for number in sorted(by_round)], final, bad


# ---------------------------------------------------------------------------------------------
# a run in progress


@dataclass(frozen=True)
class Rank:
    """The record that a rank wrote when it started or ended; `modified` is when, in seconds."""

    rank: int
    pid: int
    status: str
    exit: int | None
    message: str
    round: int
    modified: float
    notices: tuple[str, ...] = ()  # what it wants a person to know
    resumed_at: int | None = None  # the round after which it began; None: it is not yet known
    advice: str = ""  # what it found out about the run, once that is over


def ranks(folder: Path) -> list[Rank]:
    """Return the records of the ranks that have started, by rank."""
    found = filter(None, map(_rank, (folder / "logs").glob("rank-*.json")))
    return sorted(found, key=lambda rank: rank.rank)


def first_rank(folder: Path) -> Rank | None:
    """Return the record of rank 0, if it has started; no other is read, as this is asked often."""
    return _rank(folder / "logs" / "rank-0.json")


def _rank(path: Path) -> Rank | None:
    try:
        with open_regular(path) as file:
            record = json.loads(file.read(documents.MOST_BYTES))
        return Rank(
            rank=int(record["rank"]),
            pid=int(record["pid"]),
            status=str(record["status"]),
            exit=record["exit"],
            message=str(record["message"]),
            round=int(record["round"]),
            modified=path.stat().st_mtime,
            notices=tuple(map(str, record.get("notices", ()))),
            resumed_at=record.get("resumed_at"),
            advice=str(record.get("advice", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # being replaced at this moment, or not a record


def checkpoint_round(folder: Path) -> int:
    """Return the round of the newest checkpoint that was saved to the end; 0 if there is none."""
    return max(map(manifest.number_of, manifest.found(folder / manifest.FOLDER)), default=0)


def finished(folder: Path) -> bool:
    """Return whether the run has saved its model to the end."""
    try:
        return manifest.whole_model(folder / MODEL)
    except OSError:  # not readable at the moment, or not by this user
        return False


def forget_ranks(folder: Path) -> None:
    """Remove the records of an earlier start, so that they are not taken for this one's."""
    for path in (folder / "logs").glob("rank-*.json"):
        path.unlink()


class Tail:
    """The complete lines that a growing file has gained since the last read."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path, self._position = path, start

    def rows(self) -> list[Row]:
        """Return the new rows of a metrics file; lines that are no rows are left out."""
        try:
            size = self._path.stat().st_size
            if size < self._position:  # a resumed run cuts off what came after its checkpoint
                self._position = 0
            with open_regular(self._path) as file:
                file.seek(self._position)
                chunk = file.read()
        except FileNotFoundError:
            return []
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self._position += len(whole)
        return [row for line in whole.split(b"\n") if (row := parse(line)) is not None]


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty, without reading all of it."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
