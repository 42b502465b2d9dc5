"""The command that copies a run folder from a cluster to this machine: fetch."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fedctl.commands.observe import notice
from fedctl.commands.options import cluster_options, output_option, path_type, run_argument
from fedctl.commands.output import echo
from trainer.files import as_json


@click.command("fetch")
@run_argument
@click.option(
    "--out",
    type=path_type,
    metavar="DIR",
    help="Folder to copy to, empty or new.  [default: runs/RUN]",
)
@click.option(
    "--what",
    type=click.Choice(["metrics", "model", "all"]),
    default="model",
    help="What to copy. metrics: experiment, metrics and logs; model: also the trained model; "
    "all: also checkpoints and anything else.  [default: model]",
)
@click.option(
    "--image",
    metavar="IMAGE",
    help="Image of the pod that reads the folder of an ended run.  [default: the run's]",
)
@cluster_options
@output_option
def fetch(
    run: str,
    out: Path | None,
    what: str,
    image: str | None,
    context: str | None,
    namespace: str | None,
    output: str,
) -> None:
    """Copy a run's folder from the cluster to this machine, so that `fedctl report` reads it.

    While the run is active, one of its pods sends the files. Afterwards, a small temporary pod
    reads them from the run's PersistentVolumeClaim, or from the URL where the run is kept.
    Checksums are compared, and the folder appears complete or not at all.

    \b
    Example:
      fedctl fetch digits && fedctl report runs/digits
      fedctl fetch digits --what all --out runs/with-checkpoints
    """
    from fedctl.arguments import refuse_no_folder
    from fedctl.cluster.api.client import connect
    from fedctl.cluster.transfer import fetch as fetching
    from fedctl.report.summary import megabytes

    folder = out or Path("runs") / run
    refuse_no_folder(folder)
    cluster = connect(context, namespace)
    with _bar(run, output) as progress:
        got = fetching.fetch(cluster, run, folder, what, image, progress, notice)
    if output == "json":
        fields = {"name": run, "folder": str(got.folder), "files": got.files, "bytes": got.bytes}
        echo(as_json(fields | {"pod": got.pod}, indent=2))
    else:
        echo(f"{got.folder}: {got.files} files, {megabytes(got.bytes)} MB, checksums agree")


@contextmanager
def _bar(run: str, output: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr if it is a terminal."""
    if output == "json" or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from fedctl import terminal

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn()]
    with Progress(
        *columns, TransferSpeedColumn(), console=terminal.display(sys.stderr), transient=True
    ) as bar:
        task = bar.add_task(run, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=max(total, done))
