"""How the command group ends when a command is interrupted, or its error cannot be printed."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from fedctl.commands.group import Commands
from fedctl.errors import RunError, Stopped, UserError


def invoke(error: BaseException | None) -> tuple[int, str]:
    """The end of a command that raises this, or asks a question."""

    @click.group(cls=Commands)
    def main() -> None:
        pass

    @main.command()
    def act() -> None:
        if error:
            raise error
        click.confirm("Remove it?")

    done = CliRunner().invoke(main, ["act"], input="")
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyboardInterrupt(), (130, "stopped by Ctrl-C\n")),
        (None, (130, "\nstopped by Ctrl-C or Ctrl-D\n")),  # at the question
        (Stopped("stopped after round 3"), (130, "stopped after round 3\n")),
        (UserError("no such run"), (2, "error: no such run\n")),
    ],
)
def test_an_end_has_its_exit_code_and_its_line(
    error: BaseException | None, end: tuple[int, str]
) -> None:
    assert invoke(error) == end


@pytest.mark.parametrize("error", [Stopped("stopped"), RunError("failed"), UserError("wrong")])
def test_the_exit_code_stays_where_the_line_cannot_be_written(error: RunError) -> None:
    script = (
        "import click\n"
        "from fedctl.commands.group import Commands\n"
        "from fedctl.errors import *\n"
        "main = Commands('main')\n"
        "@main.command()\n"
        f"def act(): raise {type(error).__name__}('x')\n"
        "main(['act'])\n"
    )
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", script], stderr=full).returncode == (
            error.exit_code
        )
