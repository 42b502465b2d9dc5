"""The command `fedctl`: its commands, in order.

Only this module and fedctl/commands use click. Nothing but click is imported before a command runs,
so that help appears at once.
"""

import click

from fedctl import shadow

shadow.refuse()  # before anything imports the trainer

from fedctl.commands import cluster, experiments, fetch, manifests, observe, runs, upkeep  # noqa: E402
from fedctl.commands import submit as submitting  # noqa: E402
from fedctl.commands.group import Commands  # noqa: E402


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@click.version_option(package_name="fedctl", message="%(package)s %(version)s")
def main() -> None:
    """Run distributed and federated training that sends less data.

    \b
    Example:
      fedctl run gwpf-digits --ranks 4
      fedctl report runs/*
      fedctl submit gwpf-digits --ranks 4 --namespace team-a

    \b
    Exit codes of every command:
      0    success
      1    the run, or the machine it runs on, failed
      2    the command or a setting is wrong; nothing was started
      130  stopped by Ctrl-C

    A command with other codes lists them in its own help.
    """


for command in (
    experiments.list_presets,
    experiments.show,
    experiments.explain_key,
    experiments.validate,
    experiments.schema,
    runs.run,
    runs.sweep,
    runs.report_runs,
    manifests.print_values,
    manifests.render,
    manifests.lint_run,
    submitting.submit,
    submitting.diff_run,
    cluster.list_runs,
    cluster.status,
    cluster.wait,
    observe.logs,
    observe.top,
    fetch.fetch,
    cluster.suspend,
    cluster.resume,
    cluster.cancel,
    upkeep.gc,
    upkeep.doctor,
):
    main.add_command(command)
