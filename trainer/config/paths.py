"""The paths that people give, in settings and on the command line.

What is at a path is the business of others.
"""

import os
from contextlib import suppress
from pathlib import Path

from trainer.config.errors import ConfigError


def expanded(key: str, given: str) -> Path:
    """Return the path that a person gives, with ~ expanded; raise if it can be none.

    key: where it was given. A file whose own name begins with ~ is ./~name, as in a shell.
    """
    try:
        path = os.path.expanduser(given)  # pathlib would forget the ./ of such a name
        if path.startswith("~"):
            raise ValueError(f"no home folder is known for {given.partition('/')[0]}")
        with suppress(OSError):  # whether it is there, others ask
            os.lstat(path)
    except ValueError as error:  # also a zero, or half a character
        raise ConfigError(key, f"{given!r} cannot be a path ({error}); check the path") from None
    return Path(path)
