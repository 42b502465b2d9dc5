"""Commands that watch runs on a cluster: logs, top."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from fedctl.commands.options import (
    RUN,
    Duration,
    Whole,
    cluster_options,
    output_option,
    run_argument,
)
from fedctl.commands.output import echo
from fedctl.errors import FedctlError, RunError, Stopped, UserError
from trainer.files import as_json

if TYPE_CHECKING:
    from fedctl.cluster.api.client import Cluster
    from fedctl.cluster.watch.logs import Line
    from fedctl.cluster.watch.top import RunView

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")  # of ranks, in turn


@click.command("logs")
@run_argument
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Follow the log until the run has ended; wait for its start.",
)
@click.option("--rank", type=Whole(min=0), metavar="N", help="Rank to show.  [default: 0]")
@click.option(
    "--all", "every", is_flag=True, help="Show all ranks, and the rank in front of each line."
)
@click.option("--previous", is_flag=True, help="Show the log from before the rank's last restart.")
@click.option("--tail", type=Whole(min=0), metavar="N", help="Show only the last N lines.")
@click.option(
    "--since",
    type=Duration(),
    metavar="TIME",
    help="Show only lines younger than this, such as 90s or 10m.",
)
@cluster_options
@output_option
def logs(
    run: str,
    follow: bool,
    rank: int | None,
    every: bool,
    previous: bool,
    tail: int | None,
    since: float | None,
    context: str | None,
    namespace: str | None,
    output: str,
) -> None:
    """Print the log of one rank, or of all ranks.

    With -f, this waits for pods that do not exist yet, and says why. It continues through restarts,
    replaced pods and lost connections until the run has ended; then the exit code is the run's.

    \b
    Example:
      fedctl logs digits
      fedctl logs digits -f --all
      fedctl logs digits --rank 3 --previous --tail 50

    \b
    Exit codes:
      0    printed; with -f: the run has finished
      1    the cluster failed; with -f: the run has failed
      2    the command is wrong
      130  with -f: Ctrl-C; the run continues
    """
    from fedctl.cluster.api.client import connect
    from fedctl.cluster.status import job
    from fedctl.cluster.watch import logs as log

    if every and rank is not None:
        raise UserError(f"--rank {rank}: conflicts with --all; drop one of them")
    if follow and previous:
        raise UserError("--previous: conflicts with -f, since that log has ended; drop one of them")
    cluster, part = connect(context, namespace), log.Part(tail, since)
    only = None if every else [rank or 0]
    write = writer(output, every)
    if not follow:
        for line in log.read(cluster, run, only, part, previous):
            write(line)
        return
    size = job.size(job.required(cluster, run))
    if rank is not None and rank >= size:
        raise UserError(f"--rank {rank}: {run} has {size} ranks, 0 to {size - 1}")
    try:
        for line in log.follow(cluster, run, only, part, notice):
            write(line)
    except KeyboardInterrupt:
        raise Stopped(f"{run} was not stopped; `fedctl logs {run} -f` follows it again") from None
    raise_if_failed(cluster, run)


def writer(output: str, labelled: bool) -> "Callable[[Line], None]":
    """Return a function that prints a line of a log: plain, with its rank, or as JSON."""

    def write(line: "Line") -> None:
        if output == "json":
            echo(as_json({"rank": line.rank, "pod": line.pod, "line": line.text}))
        elif labelled:
            label = click.style(f"{line.rank} │", fg=COLOURS[line.rank % len(COLOURS)])
            echo(f" {line.text}", styled=label)  # click drops colours unless it is a terminal
        else:
            echo(line.text)

    return write


def notice(text: str) -> None:
    """Print to stderr what is not part of the result."""
    echo(text, err=True)


def raise_if_failed(cluster: "Cluster", run: str) -> None:
    """Raise if the run that was followed to its end has failed."""
    from fedctl.cluster.status import job

    mine = job.find(cluster, run)
    end = job.ended(mine) if mine else None
    if end is None:
        raise RunError(f"{run} was deleted before it had ended")
    if not end.succeeded:
        raise RunError(f"{run} has failed: {end.message}")


@click.command("top")
@click.argument("names", metavar="[RUN]...", nargs=-1, type=RUN)
@click.option("--ranks", "each", is_flag=True, help="Show a line for each rank too.")
@click.option(
    "--once", is_flag=True, help="Print the table once and exit (the default when piped)."
)
@click.option(
    "--every", "pause", type=Duration(), default="2s", metavar="TIME",
    help="Refresh interval.  [default: 2s]",
)  # fmt: skip
@cluster_options
@output_option
def top(
    names: tuple[str, ...],
    each: bool,
    once: bool,
    pause: float,
    context: str | None,
    namespace: str | None,
    output: str,
) -> None:
    """Show the progress of runs: round, accuracy, bytes sent and saved. Default: all active runs.

    The numbers are those that each rank serves on /metrics, read through the API server. `sent` is
    what the clients had to upload, `wire` what the ranks' collectives carried; `saved` compares
    with FedAvg in fp32. Press Ctrl-C to end it.

    \b
    Example:
      fedctl top
      fedctl top digits --ranks
      fedctl top -o json
    """
    from fedctl.cluster.api.client import connect
    from fedctl.cluster.watch.top import Top, cells
    from fedctl.report import table

    source = Top(connect(context, namespace), names)
    if output == "json":
        echo(as_json([view.as_dict() for view in source.poll()], indent=2))
        return
    if not once and sys.stdout.isatty():
        _live(source.poll, each, max(pause, 0.5))
        return
    views = source.poll()
    if views:
        table.show([row for view in views for row in cells(view, each)])
    else:
        echo("no run is active; `fedctl list` shows those that have ended")
    for view in views:
        for problem in view.problems:
            notice(problem)


def _live(poll: "Callable[[], list[RunView]]", each: bool, pause: float) -> None:
    """Redraw the table after each poll, until Ctrl-C or the end of all runs."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from fedctl import terminal
    from fedctl.cluster.api import errors
    from fedctl.cluster.status import state
    from fedctl.cluster.watch.top import cells

    def picture(views: "list[RunView]") -> Group:
        rows = [row for view in views for row in cells(view, each)] or [{"run": "no run"}]
        lines = [list(row.values()) for row in rows]
        columns = range(2, len(rows[0]))
        grid = terminal.grid(list(rows[0]), lines, right=columns, wrap=False)
        problems = [
            Text(terminal.plain(text), style="yellow") for view in views for text in view.problems
        ]
        return Group(grid, *problems)

    views = poll()
    with Live(picture(views), auto_refresh=False) as live:
        try:
            while not views or any(view.state not in state.ENDED for view in views):
                time.sleep(pause)
                try:
                    views = poll()
                except FedctlError as error:
                    if not errors.passing(error):
                        raise
                    continue  # keep the last table until the server answers again
                live.update(picture(views), refresh=True)
        except KeyboardInterrupt:
            return
