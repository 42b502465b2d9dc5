"""Commands for runs on a cluster: list, status, wait, suspend, resume, cancel."""

import sys

import click

from fedctl.commands.options import Duration, cluster_options, output_option, run_argument
from fedctl.commands.output import echo
from fedctl.errors import RunError, Stopped, UserError
from fedctl.terminal import plain
from trainer.files import as_json

# Repeated here so that help imports little; a test compares with fedctl.cluster.watch.waiting.
TARGETS = ("running", "succeeded", "finished", "suspended", "deleted")


@click.command("list")
@cluster_options
@click.option(
    "-A", "--all-namespaces", "everywhere", is_flag=True, help="List the runs of all namespaces."
)
@output_option
def list_runs(context: str | None, namespace: str | None, everywhere: bool, output: str) -> None:
    """List the runs on the cluster, newest first. `fedctl presets` lists what you can run.

    \b
    Example:
      fedctl list --namespace team-a
      fedctl list -A -o json
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.status import listing, render

    if everywhere and namespace:
        raise UserError(f"--namespace {namespace}: conflicts with -A; drop one of them")
    cluster = client.connect(context, namespace)
    runs = listing.runs(cluster, everywhere)
    if output == "json":
        echo(as_json(render.list_json(runs), indent=2))
    elif runs:
        render.show_list(runs, everywhere)
    else:
        where = "on the cluster" if everywhere else f"in namespace {cluster.namespace}"
        echo(f"no runs {where}")


@click.command()
@run_argument
@cluster_options
@output_option
def status(run: str, context: str | None, namespace: str | None, output: str) -> None:
    """Show the state of a run, its ranks, and any problems.

    \b
    Example:
      fedctl status gwpf-digits --namespace team-a

    \b
    States:
      Queued, Suspended    held back by Kueue; suspended by a person
      Pending, Starting    some ranks have no node yet; all have one, but not all run yet
      Running, Restarting  all ranks run; a rank has ended and is being restarted
      Succeeded, Failed    the run has ended
      Stopping, Cancelled  being deleted; deleted, except for its claims
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.status import render, snapshot, state

    cluster = client.connect(context, namespace)
    seen = snapshot.read(cluster, run)
    if seen.job is None and not seen.pods and not seen.claims:
        raise RunError(
            f"{run}: no such run in namespace {cluster.namespace}; `fedctl list` shows the runs "
            "there"
        )
    if output == "json":
        echo(as_json(render.status_json(seen), indent=2))
        return
    echo(render.status_text(seen))
    if rows := state.of(seen).ranks:
        render.show_ranks(rows)


@click.command()
@run_argument
@cluster_options
@click.option(
    "--for", "target", type=click.Choice(TARGETS), default="succeeded", show_default=True,
    help="State to wait for.",
)  # fmt: skip
@click.option(
    "--timeout", type=Duration(), metavar="TIME", help="Time limit, such as 90s, 10m or 2h."
)
@output_option
def wait(
    run: str,
    context: str | None,
    namespace: str | None,
    target: str,
    timeout: float | None,
    output: str,
) -> None:
    """Wait until a run on the cluster is running, has ended, is suspended or was deleted.

    \b
    Example:
      fedctl wait gwpf-digits --for running --timeout 10m
      fedctl wait gwpf-digits --for finished && fedctl status gwpf-digits

    \b
    Exit codes:
      0    the run reached the state given with --for
      1    the run failed, or the cluster did
      2    the command is wrong
      3    the state can no longer be reached: the run ended differently or was removed
      124  timed out
      130  Ctrl-C; the run continues
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.status import render
    from fedctl.cluster.watch import waiting

    cluster = client.connect(context, namespace)
    try:
        with render.Progress(run, live=True) as progress:
            now = waiting.wait(cluster, run, target, timeout, progress.show_snapshot)
    except KeyboardInterrupt:
        raise Stopped(f"{run} was not stopped; `fedctl wait {run}` waits for it again") from None
    found = {"name": run, "namespace": cluster.namespace, "state": now.state}
    echo(as_json(found, indent=2) if output == "json" else f"{run}  {now.state}")


@click.command()
@run_argument
@cluster_options
@output_option
def suspend(run: str, context: str | None, namespace: str | None, output: str) -> None:
    """Suspend a run: its ranks save a checkpoint and its pods are deleted until `fedctl resume`.

    In a Kueue queue, this deactivates the run's Workload.

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
    """Resume a suspended run from its last checkpoint; in a queue, it waits for its turn.

    \b
    Example:
      fedctl resume gwpf-digits --namespace team-a
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.change import control

    _done(run, control.resume(client.connect(context, namespace), run), output)


def _done(run: str, text: str, output: str) -> None:
    echo(as_json({"name": run, "message": text}, indent=2) if output == "json" else text)


@click.command()
@run_argument
@cluster_options
@click.option(
    "--purge",
    is_flag=True,
    help="Also delete its PersistentVolumeClaims: checkpoints, metrics, model.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the ranks have saved and ended.")
@click.option(
    "--timeout", type=Duration(), metavar="TIME", help="Time limit of the wait, such as 10m."
)
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
    """End a run and remove it from the cluster; without --purge, keep what its ranks have saved.

    Ranks that still run save a checkpoint; submitting the same run again resumes from it.

    \b
    Example:
      fedctl cancel gwpf-digits --namespace team-a
      fedctl cancel gwpf-digits --purge --yes

    \b
    Exit codes:
      0    the run was removed
      1    the cluster refused, or the run does not exist
      2    the command is wrong
      124  with --timeout: timed out; some rank has not ended, so the rest was kept
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.change import control
    from fedctl.cluster.status import render, snapshot, state

    cluster = client.connect(context, namespace)
    seen = snapshot.read(cluster, run)
    there = control.parts(cluster, run)
    if seen.job is None and not there and not (purge and seen.claims):
        kept = f"; claim {seen.claims[0]['metadata']['name']} was kept" if seen.claims else ""
        raise RunError(f"{run}: no such run in namespace {cluster.namespace}{kept}")
    now = state.of(seen)
    _ask(run, now.state, now.state not in state.ENDED, purge, yes)
    try:
        with render.Progress(run, live=True) as progress:
            ended = control.end(cluster, run, not no_wait, progress.write, timeout)
    except KeyboardInterrupt:
        raise Stopped(
            f"{run} is being removed; run `fedctl cancel {run}` again to remove the rest"
        ) from None
    removed = control.remove(cluster, run, purge, lambda text: echo(f"warning: {text}", err=True))
    names = [*([ended] if ended else []), *removed.removed]
    if output == "json":
        tree = {"name": run, "removed": names, "kept_claims": list(removed.kept)}
        echo(as_json(tree, indent=2))
        return
    for name in names:
        echo(f"{name} removed")
    for claim in removed.kept:
        echo(f"claim {claim} was kept, with the run folder; --purge removes it")


def _ask(run: str, state: str, going: bool, purge: bool, yes: bool) -> None:
    """Ask before something that cannot be undone: ending a run, or deleting what it has saved."""
    if yes or not (going or purge):
        return
    what = f"{run} is {state.lower()}. End it" if going else f"End {run}"
    what += " and remove its run folder with everything in it?" if purge else "?"
    if not sys.stdin.isatty():
        raise UserError(
            f"{run} is {state.lower()}: pass --yes to confirm when there is no terminal"
        )
    if not click.confirm(plain(what)):
        raise UserError("nothing was changed")
