"""Commands for runs on a cluster: list, status, wait, suspend, resume, cancel."""

import json
import sys

import click

from fedctl.commands.options import Duration, cluster_options, output_option, run_argument
from fedctl.errors import RunError, Stopped, UserError

# Repeated here so that help imports little; a test compares with fedctl.cluster.watch.waiting.
TARGETS = ("running", "succeeded", "finished", "suspended", "deleted")


@click.command("list")
@cluster_options
@click.option(
    "-A", "--all-namespaces", "everywhere", is_flag=True, help="The runs of all namespaces."
)
@output_option
def list_runs(context: str | None, namespace: str | None, everywhere: bool, output: str) -> None:
    """List the runs on the cluster, the newest first; `fedctl presets` lists what can be run.

    \b
    Example:
      fedctl list --namespace team-a
      fedctl list -A -o json
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.status import listing, render

    if everywhere and namespace:
        raise UserError(f"--namespace {namespace}: -A is all of them; leave one of the two out")
    cluster = client.connect(context, namespace)
    runs = listing.runs(cluster, everywhere)
    if output == "json":
        click.echo(json.dumps(render.list_json(runs), indent=2))
    elif runs:
        render.show_list(runs, everywhere)
    else:
        where = "on the cluster" if everywhere else f"in namespace {cluster.namespace}"
        click.echo(f"there are no runs {where}")


@click.command()
@run_argument
@cluster_options
@output_option
def status(run: str, context: str | None, namespace: str | None, output: str) -> None:
    """Say how a run on the cluster is doing: its state, its ranks, and what is wrong.

    \b
    Example:
      fedctl status gwpf-digits --namespace team-a

    \b
    States:
      Queued, Suspended    held back, by Kueue or by a person
      Pending, Starting    not all ranks have a node; have one, but do not run yet
      Running, Restarting  all ranks run; a rank has ended and is started again
      Succeeded, Failed    the end
      Stopping, Cancelled  being removed; removed, but for its claims
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.status import render, snapshot, state

    cluster = client.connect(context, namespace)
    seen = snapshot.read(cluster, run)
    if seen.job is None and not seen.pods and not seen.claims:
        raise RunError(
            f"{run}: no such run in namespace {cluster.namespace}; `fedctl list` shows those that "
            "are there"
        )
    if output == "json":
        click.echo(json.dumps(render.status_json(seen), indent=2))
        return
    click.echo(render.status_text(seen))
    if rows := state.of(seen).ranks:
        render.show_ranks(rows)


@click.command()
@run_argument
@cluster_options
@click.option(
    "--for", "target", type=click.Choice(TARGETS), default="succeeded", show_default=True,
    help="What to wait for.",
)  # fmt: skip
@click.option("--timeout", type=Duration(), metavar="TIME", help="Such as 90s, 10m or 2h.")
@output_option
def wait(
    run: str,
    context: str | None,
    namespace: str | None,
    target: str,
    timeout: float | None,
    output: str,
) -> None:
    """Wait until a run on the cluster runs, ends, is suspended or is gone.

    \b
    Example:
      fedctl wait gwpf-digits --for running --timeout 10m
      fedctl wait gwpf-digits --for finished && fedctl status gwpf-digits

    \b
    Exit codes:
      0    it is so
      1    the run failed, or the cluster did
      2    the command is wrong
      3    it can't be so any more: the run has ended otherwise, or is gone
      124  the time is over
      130  Ctrl-C; the run goes on
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.status import render
    from fedctl.cluster.watch import waiting

    cluster = client.connect(context, namespace)
    try:
        with render.Progress(run, live=True) as progress:
            now = waiting.wait(cluster, run, target, timeout, progress.show_snapshot)
    except KeyboardInterrupt:
        raise Stopped(f"{run} goes on; `fedctl wait {run}` waits for it again") from None
    found = {"name": run, "namespace": cluster.namespace, "state": now.state}
    click.echo(json.dumps(found, indent=2) if output == "json" else f"{run}  {now.state}")


@click.command()
@run_argument
@cluster_options
@output_option
def suspend(run: str, context: str | None, namespace: str | None, output: str) -> None:
    """Take a run's pods away until `fedctl resume`; its ranks save a checkpoint first.

    Where Kueue has let it start, the run goes out of its queue.

    \b
    Example:
      fedctl suspend gwpf-digits --namespace team-a
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.change import control

    _done(run, control.suspend(client.connect(context, namespace), run), output)


@click.command()
@run_argument
@cluster_options
@output_option
def resume(run: str, context: str | None, namespace: str | None, output: str) -> None:
    """Let a suspended run go on from its last checkpoint; in a queue it waits for its turn.

    \b
    Example:
      fedctl resume gwpf-digits --namespace team-a
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.change import control

    _done(run, control.resume(client.connect(context, namespace), run), output)


def _done(run: str, text: str, output: str) -> None:
    click.echo(json.dumps({"name": run, "message": text}, indent=2) if output == "json" else text)


@click.command()
@run_argument
@cluster_options
@click.option("--purge", is_flag=True, help="Remove its claims too: checkpoints, metrics, model.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Do not wait until its ranks have saved and ended.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="Wait no longer, such as 10m.")
@output_option
def cancel(
    run: str,
    context: str | None,
    namespace: str | None,
    purge: bool,
    yes: bool,
    no_wait: bool,
    timeout: float | None,
    output: str,
) -> None:
    """End a run on the cluster and remove it; what its ranks have saved stays, without --purge.

    Ranks that still run save a checkpoint; submitting the same run again goes on from it.

    \b
    Example:
      fedctl cancel gwpf-digits --namespace team-a
      fedctl cancel gwpf-digits --purge --yes

    \b
    Exit codes:
      0    it is gone
      1    the cluster refused, or there is no such run
      2    the command is wrong
      124  with --timeout: some rank has not ended; the rest of the run is still there
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.change import control
    from fedctl.cluster.status import render, snapshot, state

    cluster = client.connect(context, namespace)
    seen = snapshot.read(cluster, run)
    there = control.parts(cluster, run)
    if seen.job is None and not there and not (purge and seen.claims):
        kept = f"; claim {seen.claims[0]['metadata']['name']} stays" if seen.claims else ""
        raise RunError(f"{run}: no such run in namespace {cluster.namespace}{kept}")
    now = state.of(seen)
    _ask(run, now.state, now.state not in state.ENDED, purge, yes)
    try:
        with render.Progress(run, live=True) as progress:
            ended = control.end(cluster, run, not no_wait, progress.write, timeout)
    except KeyboardInterrupt:
        raise Stopped(
            f"{run} is being removed; `fedctl cancel {run}` again removes what is left of it"
        ) from None
    removed = control.remove(
        cluster, run, purge, lambda text: click.echo(f"warning: {text}", err=True)
    )
    names = [*([ended] if ended else []), *removed.removed]
    if output == "json":
        tree = {"name": run, "removed": names, "kept_claims": list(removed.kept)}
        click.echo(json.dumps(tree, indent=2))
        return
    for name in names:
        click.echo(f"{name} removed")
    for claim in removed.kept:
        click.echo(f"claim {claim} stays, with the run folder; --purge removes it")


def _ask(run: str, state: str, going: bool, purge: bool, yes: bool) -> None:
    """Ask before something that cannot be undone: ending a run, or deleting what it has saved."""
    if yes or not (going or purge):
        return
    what = f"{run} is {state.lower()}. End it" if going else f"End {run}"
    what += " and remove its run folder with everything in it?" if purge else "?"
    if not sys.stdin.isatty():
        raise UserError(f"{run} is {state.lower()}: --yes is needed where nobody can be asked")
    if not click.confirm(what):
        raise UserError("nothing was changed")
