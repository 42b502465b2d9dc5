"""The path of data, as a setting gives it.

What is at the path is the business of others. Layer 1.
"""

from contextlib import suppress
from pathlib import Path

from trainer.config.errors import ConfigError


def expanded(key: str, given: str) -> Path:
    """Return the path that a setting gives, with ~ expanded; raise if it can be none."""
    try:
        path = Path(given).expanduser()
        with suppress(OSError):  # whether it is there, others ask
            path.lstat()
    except (RuntimeError, ValueError) as error:  # no such user; a zero, or half a character
        raise ConfigError(key, f"{given!r} cannot be a path ({error}); check the path") from None
    return path
