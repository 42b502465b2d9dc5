"""Owns the commands: what is typed, what is printed, exit codes. The only module that knows click.

Nothing but click is imported before a command runs, so that help appears at once.
"""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedctl.errors import FedctlError, Stopped
from trainer.config.errors import ConfigError

if TYPE_CHECKING:
    from trainer.config.schema import Experiment


class OneLine(click.ClickException):
    """An error as this command line writes it: one line on stderr."""

    def __init__(self, message: str, exit_code: int, prefix: str = "error: ") -> None:
        super().__init__(message)
        self._code, self._prefix = exit_code, prefix

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a constant here
        return self._code

    def show(self, file: Any = None) -> None:
        click.echo(self._prefix + " ".join(self.message.split()), err=True)


class Commands(click.Group):
    """The commands in the order of their writing; the one place where errors become click's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            close = get_close_matches(args[0], self.commands, n=1)
            hint = f"did you mean {close[0]}?" if close else "`fedctl --help` lists the commands"
            raise OneLine(f"{args[0]}: no such command; {hint}", 2)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise OneLine(str(error), 2) from None
        except Stopped as error:
            raise OneLine(str(error), error.exit_code, prefix="") from None
        except FedctlError as error:
            raise OneLine(str(error), error.exit_code) from None
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "fedctl"
            message = error.format_message().rstrip(".")
            raise OneLine(f"{message}; see {where} --help", error.exit_code) from None


def output_option(command: Any) -> Any:
    """Every command that prints data takes `-o json`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="How to print the result.  [default: text]",
    )(command)


sets_option = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting; may be repeated. `fedctl explain` lists the keys.",
)
path_type = click.Path(path_type=Path)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@click.version_option(package_name="fedctl", message="%(package)s %(version)s")
def main() -> None:
    """Train one model on many machines, or with many clients who keep their data, and send less.

    \b
    Example:
      fedctl run gwpf-digits --ranks 4
      fedctl report runs/*

    \b
    Exit codes of every command:
      0  fine
      1  the run, or the machine it runs on, failed
      2  the command or a setting is wrong; nothing was started
    """


# ---------------------------------------------------------------------------------------------
# experiments


@main.command("list")
@output_option
def list_presets(output: str) -> None:
    """List the presets: experiments that ship with fedctl.

    \b
    Example:
      fedctl list
      fedctl list -o json
    """
    from fedctl import presets

    click.echo(presets.as_json() if output == "json" else presets.as_text())


@main.command()
@click.argument("source", metavar="PRESET|FILE")
@sets_option
@click.option("--why", is_flag=True, help="Say what each setting is and where its value came from.")
@output_option
def show(source: str, sets: tuple[str, ...], why: bool, output: str) -> None:
    """Show an experiment with every setting resolved, as a file that `fedctl run` reads.

    \b
    Example:
      fedctl show gwpf-digits
      fedctl show gwpf-digits --set sync.threshold=0.1 --why
    """
    from fedctl import explain

    experiment, origins = _load(source, sets)
    if output == "text":
        click.echo(explain.as_yaml(experiment, origins if why else None))
    else:
        tree = explain.reasons(experiment, origins) if why else explain.tree_of(experiment)
        click.echo(json.dumps(tree, indent=2))


@main.command("explain")
@click.argument("key", default="")
@output_option
def explain_key(key: str, output: str) -> None:
    """Explain a setting or a section: type, limits, default, meaning. Without KEY: all of them.

    \b
    Example:
      fedctl explain sync.threshold
      fedctl explain schedule
    """
    from fedctl import explain

    found = explain.find(key)
    click.echo(explain.as_json(found) if output == "json" else explain.as_text(found))


@main.command()
@click.argument("source", metavar="FILE|PRESET")
@sets_option
@output_option
def validate(source: str, sets: tuple[str, ...], output: str) -> None:
    """Check an experiment file: unknown keys, types, ranges, contradictions.

    \b
    Example:
      fedctl validate experiment.yaml
    """
    experiment, _origins = _load(source, sets)
    valid = {"valid": True, "name": experiment.name, "digest": experiment.digest()}
    size = f"{experiment.rounds} rounds, {experiment.clients} clients, ranks {experiment.ranks}"
    text = f"{source}: valid; {size}, digest {experiment.digest()}"
    click.echo(json.dumps(valid, indent=2) if output == "json" else text)


@main.command()
def schema() -> None:
    """Print the JSON schema of an experiment file, for editors that complete and check.

    \b
    Example:
      fedctl schema > experiment.schema.json
    """
    from fedctl import explain

    click.echo(explain.schema())


def _load(source: str, sets: tuple[str, ...]) -> "tuple[Experiment, dict[str, str]]":
    from fedctl import presets
    from trainer.config.load import load

    return load(source, sets=sets, presets=presets.FOLDER)


# ---------------------------------------------------------------------------------------------
# runs


@main.command()
@click.argument("source", metavar="[PRESET|FILE]", required=False)
@sets_option
@click.option(
    "--ranks", type=int, metavar="W", help="Processes to start; the same as --set ranks=W."
)
@click.option(
    "--out",
    type=path_type,
    metavar="DIR",
    help="Run folder, empty or new.  [default: runs/NAME-TIME]",
)
@click.option(
    "--resume", type=path_type, metavar="RUN", help="Continue the run in this folder; nothing else."
)
@click.option("--quiet", is_flag=True, help="Print only the run folder's path, and errors.")
@output_option
def run(
    source: str | None,
    sets: tuple[str, ...],
    ranks: int | None,
    out: Path | None,
    resume: Path | None,
    quiet: bool,
    output: str,
) -> None:
    """Run an experiment on this machine, one process per rank.

    Ctrl-C stops after the current round and saves a checkpoint; a second Ctrl-C kills at once.

    \b
    Example:
      fedctl run gwpf-digits --ranks 4
      fedctl run experiment.yaml --set rounds=10 --out runs/short
      fedctl run --resume runs/short

    \b
    Exit codes:
      0    finished; the run folder holds the model, the metrics and a report
      1    a rank failed or was killed, or something is not installed
      2    the command or a setting is wrong; nothing was left behind
      130  stopped by Ctrl-C or SIGTERM
    """
    from fedctl import local, preflight
    from fedctl.progress import view

    plan = preflight.plan(source, sets, ranks, out, resume)
    local.run(plan, lambda: view(plan.experiment, quiet, output))
    _report([plan.folder], plan.folder, "folder" if quiet else output)


@main.command("report")
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=path_type)
@click.option(
    "--out",
    type=path_type,
    metavar="DIR",
    help="Where report.html and report.png go.  [default: the run's folder; for several runs "
    "runs/report-TIME]",
)
@output_option
def report_runs(folders: tuple[Path, ...], out: Path | None, output: str) -> None:
    """Report on runs: a table here, and a page and a picture with all runs overlaid.

    The first run is the one that the others are compared with.

    \b
    Example:
      fedctl report runs/fedavg runs/gwpf --out runs/comparison
      fedctl report runs/* -o json
    """
    from fedctl.report import default_folder

    _report(list(folders), out or default_folder(list(folders)), output)


def _report(folders: list[Path], out: Path, output: str) -> None:
    """Write the report on these runs, and print their numbers and its paths."""
    from fedctl import report, runs, summary

    read = runs.read_all(folders)
    page, picture = report.write(read, out)
    numbers = [summary.summary(run, read[0] if len(read) > 1 else None) for run in read]
    if output == "json":
        result = {"runs": numbers, "page": str(page), "picture": str(picture)}
        click.echo(json.dumps(result, indent=2))
    elif output == "folder":
        click.echo(out)
    else:
        summary.table([summary.cells(row) for row in numbers])
        click.echo(f"report   {page}\npicture  {picture}")
