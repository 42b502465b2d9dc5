"""Owns the options that several commands share."""

import re
from pathlib import Path
from typing import Any

import click

path_type = click.Path(path_type=Path)
sets_option = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting; may be repeated. `fedctl explain` lists the keys.",
)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """Seconds, written as 90, 90s, 10m, 1h30m or 2d."""

    name = "duration"
    SECONDS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        found = re.findall(r"(\d+)([dhms])", text)
        if not found or "".join(map("".join, found)) != text:
            self.fail(f"{text!r} is no duration; write 90s, 10m or 1h30m", param, ctx)
        return float(sum(int(count) * dict(self.SECONDS)[unit] for count, unit in found))


def cluster_options(command: Any) -> Any:
    """Every command that asks a cluster takes these; `fedctl.cluster.client.connect` reads them."""
    for option in (
        click.option(
            "-n",
            "--namespace",
            metavar="NS",
            help="Namespace of the run.  [default: the context's, else default]",
        ),
        click.option(
            "--context", metavar="NAME", help="Of the kubeconfig.  [default: the current one]"
        ),
    ):
        command = option(command)
    return command


def output_option(command: Any) -> Any:
    """Every command that prints data takes `-o json`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="How to print the result.  [default: text]",
    )(command)
