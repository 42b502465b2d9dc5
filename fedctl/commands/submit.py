"""Commands that send a run to a cluster or compare it with one: submit and diff."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fedctl.commands.manifests import release_of, run_options
from fedctl.commands.options import Duration, cluster_options, output_option
from fedctl.commands.output import echo
from fedctl.errors import FedctlError, Stopped, UserError
from trainer.files import as_json

if TYPE_CHECKING:
    from fedctl.chart.values import Release
    from fedctl.cluster.api.client import Cluster
    from fedctl.cluster.change.submit import Sent

LAST_LINES_SECONDS = 20  # for log lines that arrive after a run has ended


@click.command()
@run_options
@cluster_options
@click.option(
    "--dry-run",
    type=click.Choice(["client", "server"]),
    help="Create nothing. client: print what would be sent; server: let the cluster check it.",
)
@click.option("--wait", is_flag=True, help="Follow the run until it ends.")
@click.option("--logs", is_flag=True, help="Follow the run, and print the log of rank 0.")
@click.option(
    "--timeout", type=Duration(), metavar="TIME", help="Time limit of --wait, such as 10m or 2h."
)
@output_option
def submit(
    output: str,
    context: str | None,
    dry_run: str | None,
    wait: bool,
    logs: bool,
    timeout: float | None,
    **given: Any,
) -> None:
    """Send a run to the cluster: the objects that `fedctl render` prints, all of them or none.

    An existing run of this name is never changed; sending the same run again does nothing.

    \b
    Example:
      fedctl submit gwpf-digits --ranks 4 --namespace team-a
      fedctl submit gwpf-digits --backend trainjob --queue gpus --wait
      fedctl submit experiment.yaml --dry-run server

    \b
    Exit codes:
      0    sent; with --wait: the run has succeeded
      1    the cluster refused it, or the run failed
      2    the command or a value is wrong, or the name is taken; nothing was sent
      3    with --wait: the run was removed in the meantime
      124  with --timeout: timed out; the run continues
      130  with --wait: Ctrl-C; the run continues
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.change import preconditions
    from fedctl.cluster.change import submit as submitting

    if timeout is not None and not (wait or logs):
        raise UserError("--timeout limits the wait; give it with --wait or --logs")
    if dry_run and (wait or logs):
        raise UserError(f"--dry-run {dry_run} starts no run to wait for; drop --wait and --logs")
    cluster = client.connect(context, given["namespace"])
    release = release_of(given | {"namespace": cluster.namespace})
    _lint(release)
    text = _render(cluster, release)
    if dry_run == "client":
        if output == "json":
            text = as_json([one.obj for one in submitting.documents(text)], indent=2) + "\n"
        echo(text, nl=False, exact=True)
        return
    preconditions.check(cluster, release)
    found = submitting.documents(text)
    if dry_run == "server":
        _print(
            output, cluster, release, submitting.rehearsal(cluster, release.name, found), dry=True
        )
        return
    sent = submitting.submit(cluster, release.name, found)
    _print(output, cluster, release, sent)
    if wait or logs:
        _follow(cluster, release.name, timeout, logs, output)


def _lint(release: "Release") -> None:
    from fedctl.chart import lint

    found = lint.problems(release)
    for problem in found:
        echo(problem.line(), err=True)
    wrong = [problem for problem in found if problem.level == "error"]
    if wrong:
        raise UserError(f"{release.name}: {len(wrong)} problem(s) found; nothing was submitted")


def _render(cluster: "Cluster", release: "Release") -> str:
    from fedctl.chart import helm
    from fedctl.cluster.change.submit import api_versions

    return helm.template(release, api_versions(cluster))


def _print(
    output: str, cluster: "Cluster", release: "Release", sent: "Sequence[Sent]", dry: bool = False
) -> None:
    for one in sent:
        for warning in one.warnings:
            echo(f"warning: {one.what}: {warning}", err=True)
    changed = any(one.result != "unchanged" for one in sent)
    if output == "json":
        tree = {
            "name": release.name,
            "namespace": cluster.namespace,
            "context": cluster.context,
            "backend": release.values.backend,
            "digest": release.experiment.digest(),
            "dry_run": dry,
            "changed": changed,
            "objects": [
                {"object": one.what, "result": one.result, "warnings": list(one.warnings)}
                for one in sent
            ],
        }
        echo(as_json(tree, indent=2))
        return
    for one in sent:
        echo(f"{one.what} {one.result}{' (server dry run)' if dry else ''}")
    where = f"namespace {cluster.namespace} of {cluster.context}"
    if dry:
        echo(f"{release.name}: {where} accepts it")
    elif changed:
        echo(f"{release.name} is in {where}; see fedctl status {release.name}")
    else:
        echo(f"{release.name} already exists in {where} and is identical; nothing was changed")


def _follow(cluster: "Cluster", run: str, timeout: float | None, logs: bool, output: str) -> None:
    from fedctl.cluster.status import render, snapshot
    from fedctl.cluster.watch import waiting

    reader = threading.Thread(target=_print_log, args=[cluster, run, output], daemon=True)
    if logs:
        reader.start()
    try:
        with render.Progress(run, live=not logs) as progress:
            waiting.wait(cluster, run, "succeeded", timeout, progress.show_snapshot)
    except KeyboardInterrupt:
        raise Stopped(f"{run} was not stopped; `fedctl wait {run}` waits for it again") from None
    if logs:
        reader.join(LAST_LINES_SECONDS)
    if output == "text":
        echo(render.status_text(snapshot.read(cluster, run)))


def _print_log(cluster: "Cluster", run: str, output: str) -> None:
    """Print the log of rank 0; if it cannot be read, warn and continue."""
    from fedctl.cluster.watch import logs

    try:
        for line in logs.follow(cluster, run, (0,)):
            echo(line.text, err=output == "json")
    except FedctlError as error:
        echo(f"warning: cannot read the log: {error}", err=True)
    except BrokenPipeError:
        return  # the reader has closed the pipe


@click.command("diff")
@run_options
@cluster_options
@output_option
def diff_run(output: str, context: str | None, **given: Any) -> None:
    """Print what a submit would change on the cluster, with the defaults that the cluster fills in.

    \b
    Example:
      fedctl diff gwpf-digits --ranks 4 --namespace team-a
      fedctl diff gwpf-digits --set sync.threshold=0.1

    \b
    Exit codes:
      0   the same
      1   different
      >1  the comparison failed
    """
    from fedctl.cluster.api import client
    from fedctl.cluster.change import diff
    from fedctl.cluster.change.submit import documents

    try:
        cluster = client.connect(context, given["namespace"])
        release = release_of(given | {"namespace": cluster.namespace})
        found = documents(_render(cluster, release))
        changed = dict(diff.differences(cluster, found))
    except FedctlError as error:
        raise UserError(
            str(error)
        ) from None  # not 1, which means different, as for diff(1) and kubectl
    if output == "json":
        changes = [{"object": name, "diff": text} for name, text in changed.items()]
        echo(as_json(changes, indent=2))
    else:
        echo("".join(changed.values()), nl=False, exact=True)
    click.get_current_context().exit(1 if changed else 0)
