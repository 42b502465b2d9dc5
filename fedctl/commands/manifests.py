"""Commands that compute what a cluster would get, without access to one: values, render, lint."""

from typing import TYPE_CHECKING, Any

import click

from fedctl.commands.options import NAMESPACE, output_option, path_type, sets_option
from fedctl.commands.output import echo
from fedctl.errors import UserError
from trainer.config.errors import ConfigError
from trainer.files import as_json

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


RUN_OPTIONS = (
    click.argument("source", metavar="PRESET|FILE"),
    sets_option,
    click.option(
        "--ranks",
        type=int,
        metavar="W",
        help="Number of ranks, one pod each; the same as --set ranks=W.",
    ),
    click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        help="What runs the pods: Kubeflow's training operator v1, its Trainer v2, or "
        "Kubernetes alone.  [default: pytorchjob]",
    ),
    click.option("--image", metavar="IMAGE", help="Trainer image."),
    click.option("--gpus", type=int, metavar="N", help="GPUs per rank, 0 or 1.  [default: 1]"),
    click.option("--name", metavar="NAME", help="Run name.  [default: the experiment's name]"),
    click.option("--queue", metavar="NAME", help="Queue to submit the run to."),
    click.option(
        "--queueing",
        type=click.Choice(QUEUES),
        help="Gang scheduler: what starts all ranks together.  [default: kueue with "
        "--queue, else none]",
    ),
    click.option(
        "--profile",
        type=click.Choice(PROFILES),
        help="Network between the ranks.  [default: tcp]",
    ),
    click.option(
        "--pod-security",
        type=click.Choice(LEVELS),
        help="Pod Security level of the namespace.  [default: restricted]",
    ),
    click.option(
        "--storage-class", metavar="CLASS", help="StorageClass of the PVC for run folders."
    ),
    click.option(
        "--deadline",
        type=int,
        metavar="SECONDS",
        help="Time limit in seconds; when it expires, the run saves a checkpoint and fails.",
    ),
    click.option(
        "--values",
        "files",
        type=path_type,
        multiple=True,
        metavar="FILE",
        help="File with more values of the chart; may be repeated.",
    ),
)


def release_options(command: Any) -> Any:
    """Add the options of commands that describe a run and need no cluster."""
    option = click.option(
        "-n",
        "--namespace",
        type=NAMESPACE,
        default="default",
        metavar="NS",
        help="Namespace of the run.  [default: default]",
    )
    return run_options(option(command))


def run_options(command: Any) -> Any:
    """Add the options that describe a run, except its namespace; `release_of` reads them."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    return command


def release_of(given: dict[str, Any]) -> "Release":
    """Build the run that the options describe."""
    from fedctl.arguments import with_ranks
    from fedctl.chart import values

    options = {key: given[option] for option, key in VALUES.items()}
    if given["queue"] and given["queueing"] is None:
        options["queue.kind"] = "kueue"
    if given["queue"] and given["queueing"] == "none":
        raise UserError(
            f"--queue {given['queue']}: conflicts with --queueing none; drop one of them"
        )
    try:
        return values.release(
            given["source"],
            with_ranks(given["sets"], given["ranks"]),
            name=given["name"],
            namespace=given["namespace"],
            files=given["files"],
            options=options,
        )
    except ConfigError as error:
        for option, key in VALUES.items():
            if key == error.key and given[option] is not None:
                raise ConfigError(f"--{option.replace('_', '-')}", error.problem) from None
        raise


@click.command("values")
@release_options
@output_option
def print_values(output: str, **given: Any) -> None:
    """Print the Helm values of a run, for the chart charts/fedtrain.

    \b
    Example:
      fedctl values gwpf-digits --image registry.example/trainer:1 > values.yaml
      helm template gwpf-digits charts/fedtrain --values values.yaml
    """
    release = release_of(given)
    if output == "json":
        echo(as_json(release.given, indent=2, ensure_ascii=False, sort_keys=True))
    else:
        echo(release.text(), nl=False, exact=True)


@click.command()
@release_options
@click.option(
    "--api-versions",
    multiple=True,
    metavar="GROUP/VERSION/KIND",
    help="A kind that the cluster has besides Kubernetes' own; may be repeated.",
)
@output_option
def render(output: str, api_versions: tuple[str, ...], **given: Any) -> None:
    """Print the objects that a submit would create; needs Helm, but no cluster.

    The output is byte for byte that of `helm template` with the values from `fedctl values`.

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
        echo(as_json(objects, indent=2, ensure_ascii=False))
    else:
        echo(text, nl=False, exact=True)


@click.command("lint")
@release_options
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@output_option
def lint_run(output: str, strict: bool, **given: Any) -> None:
    """Check a run before submitting it: values, chart, names, and what would fail on a cluster.

    \b
    Example:
      fedctl lint gwpf-digits --ranks 4
      fedctl lint experiment.yaml --queue team-a --strict
    """
    from fedctl.chart import lint

    release = release_of(given)
    found = lint.problems(release)
    if output == "json":
        echo(as_json([vars(problem) for problem in found], indent=2))
    else:
        for problem in found:
            echo(problem.line())
    failing = [problem for problem in found if strict or problem.level == "error"]
    if failing:
        raise UserError(f"{release.name}: {len(failing)} problem(s) found")
    if output == "text":
        echo(f"{release.name}: can be submitted" + (", with warnings" if found else ""))
