"""docs/cli.md: the help of every command on one page (`python -m fedctl.reference`)."""

import click

from fedctl.cli import main

WIDTH = 88
INTRODUCTION = """\
# The commands

What `--help` prints, written by scripts/regenerate; not edited by hand.
"""


def page() -> str:
    """Return the reference, in the order of `fedctl --help`."""
    settings = main.context_settings  # click takes them from the command at an invocation only
    with click.Context(main, info_name="fedctl", terminal_width=WIDTH, **settings) as top:
        parts = [INTRODUCTION, _section("fedctl", main.get_help(top))]
        for name, command in main.commands.items():
            with click.Context(command, top, info_name=name, terminal_width=WIDTH) as context:
                parts.append(_section(f"fedctl {name}", command.get_help(context)))
    return "\n".join(parts)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    print(page(), end="")
