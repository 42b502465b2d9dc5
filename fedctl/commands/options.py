"""Options and parameter types that several commands share."""

import re
from pathlib import Path
from typing import Any

import click

from fedctl.errors import UserError
from trainer.config.errors import ConfigError, cut
from trainer.config.paths import expanded


class LocalPath(click.Path):
    """A path on this machine; ~ is expanded, as a shell leaves it in --out=~/runs.

    An empty one would be the working folder, which nobody means by it, and a URL would become a
    path, with a slash less, that does not exist.
    """

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("is empty; name a file or a folder", param, ctx)
        if isinstance(value, str) and re.match("[a-z][a-z0-9+.-]*://", value):
            raise UserError(
                f"{cut(value)}: is a URL, and not a path on this machine; copy the run to a folder "
                "first (docs/storage.md)"
            )
        if isinstance(value, str):
            try:
                value = expanded("", value)
            except ConfigError as error:
                self.fail(error.problem, param, ctx)
        return super().convert(value, param, ctx)


class Whole(click.IntRange):
    """A whole number within limits, by a name that an error can use: "'x' is not a valid ..."."""

    name = "whole number"


class Real(click.FloatRange):
    """A number within limits, likewise."""

    name = "number"


path_type = LocalPath(path_type=Path)
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
    MOST = 3650 * 86400  # beyond it dates and timers overflow

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value)
        found = re.findall(r"(\d+)([dhms])", text)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            seconds = float(text)
        elif found and "".join(map("".join, found)) == text:
            seconds = float(sum(int(count) * dict(self.SECONDS)[unit] for count, unit in found))
        else:
            self.fail(f"{text!r} is not a duration; write 90s, 10m or 1h30m", param, ctx)
        if seconds > self.MOST:
            self.fail(f"{text!r} is more than ten years", param, ctx)
        return seconds


class Named(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """The name of an object on a cluster, which goes into addresses and paths unchanged."""

    def __init__(self, name: str, pattern: str) -> None:
        self.name, self._pattern = name, pattern

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not re.fullmatch(self._pattern, value):
            rule = "write lower-case letters, digits and dashes, no dash at the ends"
            self.fail(f"{value!r} is not a valid {self.name} name; {rule}", param, ctx)
        return str(value)


RUN = Named("run", "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # Helm allows dots
NAMESPACE = Named("namespace", "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
run_argument = click.argument("run", metavar="RUN", type=RUN)


def cluster_options(command: Any) -> Any:
    """Add the options of commands that need a cluster: the arguments of `client.connect`."""
    for option in (
        click.option(
            "-n",
            "--namespace",
            metavar="NS",
            type=NAMESPACE,
            help="Namespace of the run.  [default: the context's, else default]",
        ),
        click.option(
            "--context", metavar="NAME", help="Kubeconfig context.  [default: the current one]"
        ),
    ):
        command = option(command)
    return command


def output_option(command: Any) -> Any:
    """Add `-o json`, for every command that prints data."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Format of the result.  [default: text]",
    )(command)
