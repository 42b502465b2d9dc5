"""The report on one or several runs: a self-contained page, a picture, and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedctl.errors import RunError
from fedctl.report import figures
from fedctl.report.groups import Group, base_bytes, numbers
from fedctl.report.rows import frozen, uploaded
from fedctl.report.runs import REPORT_PAGE, REPORT_PICTURE, TABLE_CSV, TABLE_MARKDOWN, Run
from fedctl.report.summary import differing, leaves, percent, summary
from fedctl.report.table import RESULTS, Columns, Result, Table
from fedctl.terminal import plain
from trainer.files import write_atomically

CAPTIONS = {
    "bytes": "Accuracy by megabytes uploaded",
    "rounds": "Accuracy by round",
    "time": "Accuracy by seconds",
    "frozen": "Share of parameters not sent, by round",
    "traffic": "Uploaded megabytes by kind",
}


X = ("bytes", "rounds", "time")  # possible x axes for accuracy or perplexity


@dataclass(frozen=True)
class Layout:
    """What a report shows: accuracy (or perplexity) against each of `x`, the table's columns."""

    x: Sequence[str] = X
    columns: Columns = ()
    marks: Sequence[float] = ()  # accuracies that the figures mark with a line

    def panels(self, groups: list[Group]) -> list[str]:
        """Return the names of the figures, in order; that of frozen parameters if there are any."""
        rows = (row for group in groups for run in group.runs for row in run.rows)
        without = () if any(map(frozen, rows)) else ("frozen",)
        return [*self.x, *(name for name in CAPTIONS if name not in (*X, *without))]


def write(groups: list[Group], folder: Path, layout: Layout | None = None) -> list[Path]:
    """Write page, picture and, for several runs, the tables into `folder`; return their paths."""
    layout = layout or Layout()
    page, picture = folder / REPORT_PAGE, folder / REPORT_PICTURE
    table = Table(groups, layout.columns)
    texts = {page: html(groups, table, layout)}
    if len(groups) > 1 or len(groups[0].runs) > 1:
        texts |= {folder / TABLE_CSV: table.csv(), folder / TABLE_MARKDOWN: table.markdown()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text)
        write_atomically(picture, figures.png(groups, layout.panels(groups), layout.marks))
    except OSError as error:
        raise RunError(f"{folder}: the report cannot be written: {error.strerror}") from None
    return [page, picture, *list(texts)[1:]]


def default_folder(folders: list[Path]) -> Path:
    """Return where a report goes by default: into a single run's folder, else into a new one."""
    if len(folders) == 1:
        return folders[0]
    return Path("runs") / f"report-{datetime.now():%Y%m%d-%H%M%S}"


def html(groups: list[Group], table: Table, layout: Layout) -> str:
    """Return the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first = groups[0].runs[0]
    labels = [group.label for group in groups]
    single = len(groups) == len(groups[0].runs) == 1
    return templates.get_template("page.html.j2").render(
        title=" and ".join(labels) if len(labels) < 4 else f"{len(labels)} runs",
        groups=[
            {
                "label": group.label,
                "description": group.runs[0].experiment.get("description", ""),
                "colour": figures.colour(index),
                "cells": cells,
            }
            for index, (group, cells) in enumerate(zip(groups, table.cells(), strict=True))
        ],
        headline=_headline(groups),
        perplexity=figures.of_language(groups),
        notes=table.notes(),
        figures=[
            {
                "name": name,
                "caption": _caption(name, groups),
                "svg": figures.svg(name, groups, layout.marks),
            }
            for name in layout.panels(groups)
        ],
        differing=_differing(groups) if len(groups) > 1 else [],
        settings=sorted(leaves(first.experiment)) if single else [],
        members=[
            {
                "label": run.label,
                "group": group.label,
                "folder": plain(run.folder.name),
                "cells": cells,
            }
            for group in groups
            for run, cells in _members(group, groups)
        ],
    )


def _caption(name: str, groups: list[Group]) -> str:
    caption = CAPTIONS[name]
    return caption.replace("Accuracy", "Perplexity") if figures.of_language(groups) else caption


def _members(group: Group, groups: list[Group]) -> list[tuple[Run, dict[str, str]]]:
    """Return each run of a report on groups, with its own numbers."""
    if all(len(group.runs) == 1 for group in groups):
        return []
    names = ["seed", "accuracy", "loss", "rounds", "sent", "saved"]
    if group.language:
        names.insert(names.index("loss") + 1, "perplexity")
    columns = [("", name) for name in names]
    cells = Table([Group(run.label, [run]) for run in group.runs], columns).cells()
    return list(zip(group.runs, cells, strict=True))


def _differing(groups: list[Group]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between groups."""
    alike = any(len(group.runs) > 1 for group in groups)  # then the comparison is not between seeds
    rows = differing([group.runs[0] for group in groups])
    return [row for row in rows if not (alike and row[0] == "seed")]


def _headline(groups: list[Group]) -> str:
    """Return the page's first sentence: the result of the comparison, or of the run."""
    result = RESULTS["perplexity" if figures.of_language(groups) else "accuracy"]
    found = [numbers(group, None)[result.key] for group in groups]
    means = [result.text(spread.mean) + result.unit for spread in found]
    if len(groups) == len(groups[0].runs) == 1:
        first = summary(groups[0].runs[0])
        return (
            f"{_named(means[0], result)} after {first['rounds']} rounds; "
            f"{_less(first['saved_ratio'])} uploaded than FedAvg in fp32 would have."
        )
    if len(groups) == 1:
        ends = [result.text(end) + result.unit for end in (found[0].least, found[0].most)]
        return (
            f"{_named(means[0], result)} on average over {found[0].n} seeds, from "
            f"{ends[0]} to {ends[1]}."
        )
    base = base_bytes(groups)
    less = 1 - groups[-1].final(uploaded).mean / base if base else 0.0
    gap = found[-1].mean - found[0].mean
    far = f"{100 * abs(gap):.1f} points" if result.unit else percent(abs(gap) / found[0].mean)
    seeds = max(spread.n for spread in found)
    return (
        f"{groups[-1].label} uploaded {_less(less)} than {groups[0].label} "
        f"and ended {far} {'above' if gap >= 0 else 'below'} its {result.heading}"
        f"{f', on average over up to {seeds} seeds' if seeds > 1 else ''}."
    )


def _named(value: str, result: Result) -> str:
    return f"{value} {result.heading}" if result.unit else f"{result.heading.capitalize()} {value}"


def _less(share: float) -> str:
    if round(share, 4) == 0:
        return "no less"
    return f"{percent(abs(share))} {'less' if share > 0 else 'more'}"
