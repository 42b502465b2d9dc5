"""Owns the report on one or several runs: a page that needs nothing but itself, and a picture."""

from datetime import datetime
from pathlib import Path

from fedctl import figures
from fedctl.errors import RunError
from fedctl.runs import REPORT_PAGE, REPORT_PICTURE, Run
from fedctl.summary import cells, differing, leaves, percent, summary

CAPTIONS = {
    "bytes": "Accuracy by megabytes uploaded",
    "rounds": "Accuracy by round",
    "time": "Accuracy by seconds",
    "frozen": "Share of parameters not sent, by round",
    "traffic": "Uploaded megabytes by kind",
}


def write(runs: list[Run], folder: Path) -> tuple[Path, Path]:
    """Write the page and the picture into `folder`; returns their paths."""
    page, picture = folder / REPORT_PAGE, folder / REPORT_PICTURE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{REPORT_PAGE}"
        partial.write_text(html(runs), "utf-8")
        partial.replace(page)
        figures.png(picture, runs)
    except OSError as error:
        raise RunError(f"{folder}: the report cannot be written: {error.strerror}") from None
    return page, picture


def default_folder(folders: list[Path]) -> Path:
    """Where a report goes if nobody says: into a single run's folder, else into a new one."""
    if len(folders) == 1:
        return folders[0]
    return Path("runs") / f"report-{datetime.now():%Y%m%d-%H%M%S}"


def html(runs: list[Run]) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first = runs[0]
    numbers = [summary(run, first if len(runs) > 1 else None) for run in runs]
    return templates.get_template("report.html.j2").render(
        title=" and ".join(run.label for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        runs=[
            {
                "label": run.label,
                "description": run.experiment.get("description", ""),
                "colour": figures.colour(index),
                "cells": cells(row),
                "unfinished": not run.finished,
            }
            for index, (run, row) in enumerate(zip(runs, numbers, strict=True))
        ],
        headline=_headline(runs),
        figures=[
            {"name": name, "caption": caption, "svg": figures.svg(name, runs)}
            for name, caption in CAPTIONS.items()
        ],
        differing=differing(runs) if len(runs) > 1 else [],
        settings=_settings(first) if len(runs) == 1 else [],
    )


def _headline(runs: list[Run]) -> str:
    """The page's first sentence: what the comparison, or the run, comes to."""
    first = summary(runs[0])
    if len(runs) == 1:
        return (
            f"{percent(first['test_accuracy_ratio'])} accuracy after {first['rounds']} rounds; "
            f"{_less(first['saved_ratio'])} uploaded than FedAvg in fp32 would have."
        )
    other = summary(runs[-1], runs[0])
    gap = 100 * (other["test_accuracy_ratio"] - first["test_accuracy_ratio"])
    return (
        f"{other['run']} uploaded {_less(other['saved_against_first_ratio'])} than {first['run']} "
        f"and ended {abs(gap):.1f} points {'above' if gap >= 0 else 'below'} its accuracy."
    )


def _less(share: float) -> str:
    if round(share, 4) == 0:
        return "no less"
    return f"{percent(abs(share))} {'less' if share > 0 else 'more'}"


def _settings(run: Run) -> list[tuple[str, str]]:
    return sorted(leaves(run.experiment))
