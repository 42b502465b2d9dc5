"""Commands for runs on this machine, and for reports: run, sweep, report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedctl.commands.options import Real, Whole, output_option, path_type, sets_option
from fedctl.commands.output import echo
from fedctl.errors import Stopped
from trainer.files import as_json

if TYPE_CHECKING:
    from fedctl.report.groups import Group
    from fedctl.report.page import Layout
    from fedctl.sweep.jobs import Batch


@click.command()
@click.argument("source", metavar="[PRESET|FILE]", required=False)
@sets_option
@click.option(
    "--ranks",
    type=int,
    metavar="W",
    help="Number of processes to start; the same as --set ranks=W.",
)
@click.option(
    "--out",
    type=path_type,
    metavar="DIR",
    help="Run folder, empty or new.  [default: runs/NAME-TIME]",
)
@click.option(
    "--resume",
    type=path_type,
    metavar="RUN",
    help="Resume the run in this folder, with --set for more rounds, say.",
)
@click.option(
    "--allow-changed",
    "allowed",
    multiple=True,
    metavar="KEY",
    help="With --resume: accept a changed value of this setting; `data` accepts other samples, "
    "`metrics` a metrics.jsonl that has lost rows. May be repeated.",
)
@click.option("--quiet", is_flag=True, help="Print only the path of the run folder, and errors.")
@output_option
def run(
    source: str | None,
    sets: tuple[str, ...],
    ranks: int | None,
    out: Path | None,
    resume: Path | None,
    allowed: tuple[str, ...],
    quiet: bool,
    output: str,
) -> None:
    """Run an experiment on this machine, one process per rank.

    Ctrl-C saves a checkpoint after the current round and stops; a second Ctrl-C kills at once.

    \b
    Example:
      fedctl run gwpf-digits --ranks 4
      fedctl run experiment.yaml --set rounds=10 --out runs/short
      fedctl run --resume runs/short
      fedctl run --resume runs/short --set rounds=20

    \b
    Exit codes:
      0    finished; the run folder has the model, the metrics and a report
      1    the run diverged, a rank failed or was killed, or something is not installed
      2    the command or a setting is wrong; nothing was left behind
      130  stopped by Ctrl-C, SIGTERM or the closing of the terminal
    """
    from fedctl.local import launch, preflight
    from fedctl.local.progress import view

    plan = preflight.plan(source, sets, ranks, out, resume, allowed)
    launch.run(plan, lambda: view(plan.experiment, quiet, output))
    result = _report(_read([plan.folder]), plan.folder, "folder" if quiet else output)
    if output == "json" and not quiet:
        echo(as_json(result, indent=2))


@click.command()
@click.argument("source", metavar="FILE|NAME")
@sets_option
@click.option(
    "--jobs",
    type=Whole(min=1),
    metavar="N",
    help="Number of runs at a time.  [default: CPUs divided by the needs of the largest run]",
)
@click.option(
    "--out",
    type=path_type,
    metavar="DIR",
    help="Folder for the runs and their report.  [default: runs/NAME]",
)
@click.option("--fail-fast", is_flag=True, help="Stop the remaining runs as soon as one fails.")
@click.option("--dry-run", is_flag=True, help="List the runs without starting them.")
@output_option
def sweep(
    source: str,
    sets: tuple[str, ...],
    jobs: int | None,
    out: Path | None,
    fail_fast: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Run the experiments of a sweep, several at a time, and report on them.

    The file describes what they share (base, set) and what varies (grid, runs, seeds). To resume a
    sweep, run the same command again: finished runs are skipped.

    Ctrl-C saves a checkpoint of each run after its round and stops; a second Ctrl-C kills at once.

    \b
    Example:
      fedctl sweep digits-freezing
      fedctl sweep mine.yaml --set rounds=10 --dry-run

    \b
    A file:
      base: fedavg-digits
      set: {rounds: 20}
      grid:
        algorithm: [{name: fedavg}, {name: fedga, beta: 0.025}]
        optimizer.lr: [0.05, 0.1]
      runs: [{}, {name: skewed, data.partition.alpha: 0.1}]
      seeds: [1, 2, 3]
      report: {x: [rounds, bytes], columns: [run, seeds, accuracy, saved]}

    \b
    Exit codes:
      0    every run has finished; the folder holds them and their report
      1    a run failed; the report covers the others
      2    the command, the file or a setting is wrong; nothing was started
      130  stopped by Ctrl-C, SIGTERM or the closing of the terminal
    """
    from fedctl.sweep import jobs as at_work
    from fedctl.sweep.overview import overview

    batch = at_work.batch(source, sets, jobs, out)
    if dry_run:
        _show_plan(batch, output)
        return
    echo(batch.text(), err=output == "json")
    outcomes = at_work.run(batch, fail_fast, lambda: overview(*batch.work(), output))
    error = at_work.verdict(outcomes)
    result: dict[str, Any] = {}
    groups = at_work.finished_groups(outcomes)
    if groups and not isinstance(error, Stopped):
        from fedctl.report.page import Layout

        shown = batch.sweep.report
        layout = Layout(shown.x, shown.columns, shown.marks)
        result = _report(groups, batch.folder, output, layout)
    if output == "json":
        result |= {"sweep": [outcome.as_dict() for outcome in outcomes]}
        echo(as_json(result, indent=2))
    for outcome in outcomes:
        if outcome.state == at_work.FAILED:
            echo(f"{outcome.item.variant.name}: {outcome.problem}", err=True)
    if error:
        raise error


def _show_plan(batch: "Batch", output: str) -> None:
    from fedctl.report import table
    from fedctl.sweep import backlog

    rows = [
        {
            "run": item.variant.name,
            "to do": backlog.TO_DO[item.state],
            "rounds": str(item.variant.experiment.rounds),
            "ranks": str(item.variant.experiment.ranks),
            "digest": item.variant.digest,
        }
        for item in batch.items
    ]
    if output == "json":
        echo(as_json(batch.as_dict(), indent=2))
    else:
        echo(batch.text())
        table.show(rows)


@click.command("report")
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=path_type)
@click.option(
    "--out",
    type=path_type,
    metavar="DIR",
    help="Folder for report.html and report.png.  [default: the run's folder; for several runs "
    "runs/report-TIME]",
)
@click.option(
    "--mark",
    "marks",
    type=Real(0, 1),
    multiple=True,
    metavar="ACCURACY",
    help="Mark an accuracy with a line in the figures, such as 0.99; may be repeated.",
)
@click.option(
    "--each", is_flag=True, help="Show every run on its own, even if some differ only by seed."
)
@output_option
def report_runs(
    folders: tuple[Path, ...],
    out: Path | None,
    marks: tuple[float, ...],
    each: bool,
    output: str,
) -> None:
    """Report on runs: print a table, and write a page and a figure with all runs overlaid.

    Runs that differ only by their seed become one line, with their mean and spread. A folder of
    runs stands for the runs in it. The first run is the one that the others are compared with.

    \b
    Example:
      fedctl report runs/fedavg runs/gwpf --out runs/comparison
      fedctl report runs/digits-freezing --mark 0.95
      fedctl report runs/* -o json
    """
    from fedctl.arguments import refuse_no_folder
    from fedctl.report.page import Layout, default_folder

    if out:
        refuse_no_folder(out)
    layout = Layout(marks=marks)
    result = _report(_read(folders, each), out or default_folder(list(folders)), output, layout)
    if output == "json":
        echo(as_json(result, indent=2))


def _read(folders: Sequence[Path], each: bool = False) -> "list[Group]":
    from fedctl.report import groups, runs

    found = runs.read_all(runs.expand(list(folders)))
    return groups.singles(found) if each else groups.grouped(found)


def _report(
    groups: "list[Group]", out: Path, output: str, layout: "Layout | None" = None
) -> dict[str, Any]:
    """Write the report on these runs; print its numbers and paths, unless as JSON."""
    from fedctl.report import page as pages
    from fedctl.report import table
    from fedctl.report.groups import base_bytes
    from fedctl.report.summary import summary

    for run in (run for group in groups for run in group.runs):
        if run.notice:
            echo(f"warning: {run.notice}", err=True)
    page, picture, *tables = pages.write(groups, out, layout)
    if output == "folder":
        echo(out)
    elif output == "text":
        columns = layout.columns if layout else ()
        shown = table.Table(groups, columns)
        table.show(shown.cells())
        for line in shown.notes():
            echo(line)
        if not columns:
            echo(table.NOTE)
        echo(f"report   {page}\npicture  {picture}")
        if tables:
            echo(f"table    {', '.join(map(str, tables))}")
    result: dict[str, Any] = {
        "runs": [summary(run, base_bytes(groups)) for group in groups for run in group.runs]
    }
    if any(len(group.runs) > 1 for group in groups):
        result["groups"] = [table.as_dict(group, groups) for group in groups]
    result |= {"page": str(page), "picture": str(picture)}
    return result | ({"table": str(tables[0])} if tables else {})
