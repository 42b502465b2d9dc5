"""Commands for experiments: presets, show, explain, validate, schema."""

from typing import TYPE_CHECKING

import click

from fedctl.commands.options import output_option, sets_option
from fedctl.commands.output import echo
from fedctl.terminal import width
from trainer.files import as_json

if TYPE_CHECKING:
    from trainer.config.schema import Experiment


@click.command("presets")
@output_option
def list_presets(output: str) -> None:
    """List the bundled presets (experiments) and sweeps.

    \b
    Example:
      fedctl presets
      fedctl presets -o json
    """
    from fedctl import bundled

    echo(bundled.as_json() if output == "json" else bundled.as_text(width(100)))


@click.command()
@click.argument("source", metavar="PRESET|FILE")
@sets_option
@click.option(
    "--why", is_flag=True, help="Show the meaning of each setting and the origin of its value."
)
@output_option
def show(source: str, sets: tuple[str, ...], why: bool, output: str) -> None:
    """Show an experiment with every setting resolved, as a file that `fedctl run` can read.

    \b
    Example:
      fedctl show gwpf-digits
      fedctl show gwpf-digits --set sync.threshold=0.1 --why
    """
    from fedctl import explain

    experiment, origins = _load(source, sets)
    if output == "text":
        echo(explain.as_yaml(experiment, origins if why else None, width()), exact=True)
    else:
        tree = explain.reasons(experiment, origins) if why else explain.tree_of(experiment)
        echo(as_json(tree, indent=2))


@click.command("explain")
@click.argument("key", default="")
@output_option
def explain_key(key: str, output: str) -> None:
    """Explain a setting or a section: type, limits, default, meaning. Without KEY: all settings.

    \b
    Example:
      fedctl explain sync.threshold
      fedctl explain schedule
    """
    from fedctl import explain

    found = explain.find(key)
    echo(explain.as_json(found) if output == "json" else explain.as_text(found, width()))


@click.command()
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
    echo(as_json(valid, indent=2) if output == "json" else text)


@click.command()
def schema() -> None:
    """Print the JSON schema of an experiment file, for editors that complete and check.

    \b
    Example:
      fedctl schema > experiment.schema.json
    """
    from fedctl import explain

    echo(explain.schema())


def _load(source: str, sets: tuple[str, ...]) -> "tuple[Experiment, dict[str, str]]":
    from fedctl import bundled
    from trainer.config.load import load

    return load(source, sets=sets, presets=bundled.PRESETS)
