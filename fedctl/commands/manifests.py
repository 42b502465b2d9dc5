"""Commands that compute what a cluster would get, without access to one: values, render, lint."""

import json
from typing import TYPE_CHECKING, Any

import click

from fedctl.commands.options import output_option, path_type, sets_option
from fedctl.errors import UserError

if TYPE_CHECKING:
    from fedctl.chart.values import Release

# Repeated here so that help loads no pydantic; a test compares with fedctl.chart.schema.
BACKENDS = ("pytorchjob", "trainjob", "job")
PROFILES = ("tcp", "infiniband", "coreweave", "together", "nebius", "aws-efa", "oci-roce")
LEVELS = ("restricted", "baseline", "privileged")
QUEUES = ("none", "kueue", "volcano", "native")

# option -> value of the chart that it sets
VALUES = {
    "backend": "backend",
    "image": "image.reference",
    "gpus": "resources.gpus",
    "profile": "network.profile",
    "pod_security": "podSecurity",
    "queue": "queue.name",
    "queueing": "queue.kind",
    "storage_class": "storage.runs.storageClass",
    "deadline": "deadlineSeconds",
}


def release_options(command: Any) -> Any:
    """Add the options of commands that describe a run and need no cluster."""
    option = click.option(
        "-n",
        "--namespace",
        default="default",
        metavar="NS",
        help="Where the run goes.  [default: default]",
    )
    return run_options(option(command))


def run_options(command: Any) -> Any:
    """Add the options that describe a run, except its namespace; `release_of` reads them."""
    for option in reversed(
        [
            click.argument("source", metavar="PRESET|FILE"),
            sets_option,
            click.option("--ranks", type=int, metavar="W", help="Pods; the same as --set ranks=W."),
            click.option(
                "--backend",
                type=click.Choice(BACKENDS),
                help="What runs the pods: Kubeflow's training operator v1, its Trainer v2, or "
                "Kubernetes alone.  [default: pytorchjob]",
            ),
            click.option("--image", metavar="IMAGE", help="Image that has the trainer."),
            click.option(
                "--gpus", type=int, metavar="N", help="GPUs of a rank, 0 or 1.  [default: 1]"
            ),
            click.option("--name", metavar="NAME", help="Of the run.  [default: the experiment's]"),
            click.option("--queue", metavar="NAME", help="Queue that the run waits in."),
            click.option(
                "--queueing",
                type=click.Choice(QUEUES),
                help="Who starts all ranks at once.  [default: kueue with --queue, else none]",
            ),
            click.option(
                "--profile",
                type=click.Choice(PROFILES),
                help="How ranks reach each other.  [default: tcp]",
            ),
            click.option(
                "--pod-security",
                type=click.Choice(LEVELS),
                help="Pod Security level of the namespace.  [default: restricted]",
            ),
            click.option("--storage-class", metavar="CLASS", help="Of the claim for run folders."),
            click.option(
                "--deadline",
                type=int,
                metavar="SECONDS",
                help="Save a checkpoint and fail after so long.",
            ),
            click.option(
                "--values",
                "files",
                type=path_type,
                multiple=True,
                metavar="FILE",
                help="More values of the chart; may be repeated.",
            ),
        ]
    ):
        command = option(command)
    return command


def release_of(given: dict[str, Any]) -> "Release":
    """Build the run that the options describe."""
    from fedctl.chart import values

    options = {key: given[option] for option, key in VALUES.items()}
    if given["queue"] and given["queueing"] is None:
        options["queue.kind"] = "kueue"
    if given["queue"] and given["queueing"] == "none":
        raise UserError(f"--queue {given['queue']}: with --queueing none nobody asks it")
    ranks = [] if given["ranks"] is None else [f"ranks={given['ranks']}"]
    return values.release(
        given["source"],
        [*given["sets"], *ranks],
        name=given["name"],
        namespace=given["namespace"],
        files=given["files"],
        options=options,
    )


@click.command("values")
@release_options
@output_option
def print_values(output: str, **given: Any) -> None:
    """Print the Helm values of a run: what the chart charts/fedtrain makes it from.

    \b
    Example:
      fedctl values gwpf-digits --image registry.example/trainer:1 > values.yaml
      helm template gwpf-digits charts/fedtrain --values values.yaml
    """
    release = release_of(given)
    if output == "json":
        click.echo(json.dumps(release.given, indent=2, ensure_ascii=False, sort_keys=True))
    else:
        click.echo(release.text(), nl=False)


@click.command()
@release_options
@click.option(
    "--api-versions",
    multiple=True,
    metavar="GROUP/VERSION/KIND",
    help="A kind that the cluster has beside Kubernetes' own; may be repeated.",
)
@output_option
def render(output: str, api_versions: tuple[str, ...], **given: Any) -> None:
    """Print the objects that a submit would send; needs Helm, and no cluster.

    The same bytes as `helm template` on the output of `fedctl values`.

    \b
    Example:
      fedctl render gwpf-digits --ranks 4 --namespace team-a
      fedctl render gwpf-digits --backend job -o json
    """
    from fedctl.chart import helm

    text = helm.template(release_of(given), api_versions)
    if output == "json":
        import yaml

        objects = [item for item in yaml.safe_load_all(text) if item]
        click.echo(json.dumps(objects, indent=2, ensure_ascii=False))
    else:
        click.echo(text, nl=False)


@click.command("lint")
@release_options
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@output_option
def lint_run(output: str, strict: bool, **given: Any) -> None:
    """Check a run before it is sent: values, chart, names, and what would fail on a cluster.

    \b
    Example:
      fedctl lint gwpf-digits --ranks 4
      fedctl lint experiment.yaml --queue team-a --strict
    """
    from fedctl.chart import lint

    release = release_of(given)
    found = lint.problems(release)
    if output == "json":
        click.echo(json.dumps([vars(problem) for problem in found], indent=2))
    else:
        for problem in found:
            click.echo(problem.line())
    failing = [problem for problem in found if strict or problem.level == "error"]
    if failing:
        raise UserError(f"{release.name}: {len(failing)} to mend")
    if output == "text":
        click.echo(f"{release.name}: can be sent" + (", with warnings" if found else ""))
