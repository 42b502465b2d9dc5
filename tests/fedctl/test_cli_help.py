"""Help is complete, quick and in the documents: what is said about a command can't drift."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fedctl import reference
from fedctl.cli import main
from fedctl.explain import schema

ROOT = Path(__file__).parent.parent.parent
HEAVY = {
    "jinja2",
    "kubernetes",
    "matplotlib",
    "numpy",
    "psutil",
    "pydantic",
    "rich",
    "torch",
    "urllib3",
    "yaml",
}


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\n{code}\nprint('loaded', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return HEAVY & {*done.stdout.splitlines()[-1].split()}


def test_help_loads_nothing_heavy() -> None:
    assert (
        loaded_by("from fedctl.cli import main\nmain(['--help'], standalone_mode=False)") == set()
    )
    for name in main.commands:
        words = [name, "--help"]
        assert (
            loaded_by(f"from fedctl.cli import main\nmain({words}, standalone_mode=False)") == set()
        )


def test_showing_an_experiment_loads_neither_torch_nor_pictures() -> None:
    code = "from fedctl.cli import main\nmain(['show', 'gwpf-digits'], standalone_mode=False)"
    assert loaded_by(code) == {"pydantic", "yaml"}


@pytest.mark.parametrize("command", main.commands.values(), ids=list(main.commands))
def test_every_command_has_help_and_an_example(command: click.Command) -> None:
    assert command.help
    text = inspect.cleandoc(command.help)
    first, *_ = text.splitlines()
    assert len(first) > 20 and first.endswith(".")
    assert f"Example:\n  fedctl {command.name}" in text


def test_every_option_has_help() -> None:
    silent = [
        f"{name} {parameter.name}"
        for name, command in main.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


def test_exit_codes_are_in_the_help() -> None:
    assert main.help and main.commands["run"].help
    assert "Exit codes" in main.help and "130" in main.commands["run"].help


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs/cli.md").read_text("utf-8") == reference.page()


def test_the_schema_is_up_to_date() -> None:
    assert (ROOT / "docs/experiment.schema.json").read_text("utf-8") == schema() + "\n"
    assert "extends" in json.loads(schema())["properties"]
