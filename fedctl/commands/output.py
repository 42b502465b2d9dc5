"""Printing of results and notices. No other command calls click's `echo`."""

import sys

import click

from fedctl.terminal import plain


def echo(
    text: object = "", *, err: bool = False, nl: bool = True, styled: str = "", exact: bool = False
) -> None:
    """Print `styled`, which is fedctl's own, and then `text`, which may come from anywhere.

    `exact`: a document for programs, which only a terminal gets with its controls escaped.
    """
    stream = sys.stderr if err else sys.stdout
    safe = exact and not (stream is not None and stream.isatty())
    click.echo(styled + (str(text) if safe else plain(str(text))), err=err, nl=nl)
