"""The command group: the order of commands, and every error as one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import click

from fedctl.commands.output import echo
from fedctl.errors import FedctlError, Stopped
from fedctl.terminal import plain, silence, write_any_sign
from trainer.config.errors import ConfigError

MOST_SHOWN = 2000  # characters of an error: names and messages of others may have any length


class OneLine(click.ClickException):
    """An error as this command line prints it: one line on stderr."""

    def __init__(self, message: str, exit_code: int, prefix: str = "error: ") -> None:
        super().__init__(message)
        self._code, self._prefix = exit_code, prefix

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a constant here
        return self._code

    def line(self) -> str:
        """Return the line, of bounded length; what a terminal would obey is spelled out."""
        line = " ".join(self.message.split())
        return plain(
            self._prefix + (line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]} ...")
        )

    def show(self, file: Any = None) -> None:
        try:
            echo(self.line(), err=True)
        except OSError:  # nobody can read it any more: its exit code is what is left
            silence(sys.stderr)


class Commands(click.Group):
    """The commands in the order of their definition. Only this module turns errors into click's."""

    def main(self, *args: Any, **extra: Any) -> Any:
        write_any_sign()
        return super().main(*args, **extra)

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

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _one_line():  # of --help and of wrong options, before any command
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise OneLine(str(error), 2) from None
    except Stopped as error:
        raise OneLine(str(error), error.exit_code, prefix="") from None
    except KeyboardInterrupt:  # click would exit with 1, which means that the run has failed
        raise OneLine("stopped by Ctrl-C", Stopped.exit_code, prefix="") from None
    except click.Abort:  # the same at a question, whose line has no end yet
        echo(err=True)
        raise OneLine("stopped by Ctrl-C or Ctrl-D", Stopped.exit_code, prefix="") from None
    except FedctlError as error:
        raise OneLine(str(error), error.exit_code) from None
    except BrokenPipeError:
        raise  # `| head` has seen enough: click ends without a word
    except OSError as error:  # a full disk, for one, or a home folder that is not readable
        where = error.filename or "the output"
        raise OneLine(f"{where}: {(error.strerror or str(error)).lower()}", 1) from None
    except RecursionError:
        raise OneLine("what was read is nested too deeply", 1) from None
    except MemoryError:
        raise OneLine("this machine has not enough memory for it", 1) from None
    except click.UsageError as error:
        raise OneLine(_told(error), error.exit_code) from None


def _told(error: click.UsageError) -> str:
    """Return what a wrong command line is answered; a setting is no option, but looks like one."""
    where = error.ctx.command_path if error.ctx else "fedctl"
    if isinstance(error, click.NoSuchOption) and error.ctx:
        from trainer.config.keys import settings

        key = error.option_name.lstrip("-").replace("-", "_")
        takes_settings = any("--set" in option.opts for option in error.ctx.command.params)
        if takes_settings and any(setting.key == key for setting in settings()):
            return f"No such option '{error.option_name}'; {key} is a setting: --set {key}=VALUE"
    message = error.format_message().rstrip(".")
    return f"{message}; see {where} --help"
