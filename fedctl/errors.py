"""Errors that end a command in one line. A bad setting is a ConfigError of trainer.config."""

from trainer.config.secrets import redacted


class FedctlError(Exception):
    """One line for the user, with the remedy in it and no secret, whoever wrote parts of it."""

    exit_code = 1

    def __init__(self, line: str) -> None:
        super().__init__(redacted(line))


class UserError(FedctlError):
    """The command itself is wrong: exit code 2."""

    exit_code = 2


class RunError(FedctlError):
    """The run, or the machine it runs on, failed: exit code 1."""


class Stopped(FedctlError):
    """The run was stopped on request, by Ctrl-C, SIGTERM or SIGHUP: exit code 130."""

    exit_code = 130
