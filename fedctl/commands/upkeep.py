"""Commands for the upkeep of a cluster: gc, doctor."""

import sys
from typing import TYPE_CHECKING

import click

from fedctl.commands.options import Duration, cluster_options, output_option
from fedctl.commands.output import echo
from fedctl.errors import RunError, UserError
from trainer.files import as_json

if TYPE_CHECKING:
    from fedctl.cluster.change.gc import Item

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "unknown": "cyan"}


@click.command("gc")
@click.option(
    "--older-than", type=Duration(), default="7d", metavar="TIME",
    help="Only runs that ended at least this long ago, such as 12h.  [default: 7d]",
)  # fmt: skip
@click.option(
    "--claims",
    is_flag=True,
    help="Also PersistentVolumeClaims, with their run folders and checkpoints.",
)
@click.option("--dry-run", is_flag=True, help="List what would be removed, without removing it.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Search all namespaces.")
@cluster_options
@output_option
def gc(
    older_than: float,
    claims: bool,
    dry_run: bool,
    yes: bool,
    everywhere: bool,
    context: str | None,
    namespace: str | None,
    output: str,
) -> None:
    """Remove runs that ended long ago, and leftovers of runs that were deleted.

    This lists them and asks for confirmation. Claims, with the run folders in them, are kept unless
    --claims is given. What a Helm release or Argo CD manages is always kept.

    \b
    Example:
      fedctl gc --dry-run
      fedctl gc --older-than 12h --yes
    """
    from datetime import timedelta

    from fedctl.cluster.api.client import connect
    from fedctl.cluster.change import gc as leftovers

    if everywhere and namespace:
        raise UserError(f"--namespace {namespace}: conflicts with -A; drop one of them")
    cluster = connect(context, namespace)
    items = leftovers.find(cluster, timedelta(seconds=older_than), claims, everywhere)
    if output == "text":
        if not items:
            echo("nothing to remove")
            return
        _show(items, everywhere)
    going = [item for item in items if not item.kept]
    if dry_run or not going:
        if output == "json":
            listed = [item.as_dict() for item in items]
            echo(as_json({"found": listed} if dry_run else {"removed": []}, indent=2))
        return
    if not yes and not (sys.stdin.isatty() and output == "text"):
        raise UserError("pass --yes to confirm when there is no terminal; --dry-run only lists")
    if not yes and not click.confirm(f"Remove these {len(going)}?"):
        raise UserError("nothing was removed")
    results = list(leftovers.remove(cluster, going))
    failed = [(item, problem) for item, problem in results if problem]
    if output == "json":
        ends = [item.as_dict() | {"problem": problem} for item, problem in results]
        echo(as_json({"removed": ends}, indent=2))
    else:
        echo(f"{len(results) - len(failed)} removed")
    if failed:
        raise RunError(f"{len(failed)} could not be removed: {failed[0][0].what}: {failed[0][1]}")


def _show(items: "list[Item]", everywhere: bool) -> None:
    from fedctl.cluster.status import render

    rows = []
    for item in items:
        why = f"{item.why}; kept: {item.kept}" if item.kept else item.why
        rows.append([*([item.namespace] if everywhere else []), item.what, item.run, why])
    render.show([*(["namespace"] if everywhere else []), "object", "run", "why"], rows)


@click.command("doctor")
@cluster_options
@output_option
def doctor(context: str | None, namespace: str | None, output: str) -> None:
    """Check a cluster for what runs need, and report what is missing and how to fix it.

    Each check reports ok, warn (some runs will not work), fail (no run will work) or unknown (you
    lack permission to check). Nothing is changed.

    \b
    Example:
      fedctl doctor --namespace team-a
      fedctl doctor -o json

    \b
    Exit codes:
      0  no check fails
      1  a check fails
      2  the command is wrong
    """
    from fedctl.cluster.api.client import connect
    from fedctl.cluster.doctor import examination

    found = []
    for finding in examination.examine(connect(context, namespace)):
        found.append(finding)
        if output == "text":
            level = click.style(f"{finding.level:<8}", fg=COLOURS[finding.level])
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            echo(f" {finding.check:<13} {finding.text}{remedy}", styled=level)
    if output == "json":
        echo(as_json([vars(finding) for finding in found], indent=2))
    if error := examination.verdict(found):
        raise error
