"""Owns the errors that end a command in one line; a bad setting is trainer.config's ConfigError."""


class FedctlError(Exception):
    """One line for the person at the terminal, with the remedy in it."""

    exit_code = 1


class UserError(FedctlError):
    """The command cannot mean what was typed: exit code 2."""

    exit_code = 2


class RunError(FedctlError):
    """The run, or the machine it runs on, failed: exit code 1."""


class Stopped(FedctlError):
    """The run was stopped on request, by Ctrl-C or SIGTERM: exit code 130."""

    exit_code = 130
