"""The command group: the order of commands, and every error as one line."""

from difflib import get_close_matches
from typing import Any

import click

from fedctl.errors import FedctlError, Stopped
from trainer.config.errors import ConfigError


class OneLine(click.ClickException):
    """An error as this command line prints it: one line on stderr."""

    def __init__(self, message: str, exit_code: int, prefix: str = "error: ") -> None:
        super().__init__(message)
        self._code, self._prefix = exit_code, prefix

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a constant here
        return self._code

    def line(self) -> str:
        """Return the line; what a terminal would obey, such as an escape code, is spelled out."""
        text = self._prefix + " ".join(self.message.split())
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

    def show(self, file: Any = None) -> None:
        click.echo(self.line(), err=True)


class Commands(click.Group):
    """The commands in the order of their definition. Only this class turns errors into click's."""

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
        except KeyboardInterrupt:  # click would exit with 1, which means that the run has failed
            raise OneLine("stopped by Ctrl-C", Stopped.exit_code, prefix="") from None
        except FedctlError as error:
            raise OneLine(str(error), error.exit_code) from None
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "fedctl"
            message = error.format_message().rstrip(".")
            raise OneLine(f"{message}; see {where} --help", error.exit_code) from None
