"""The errors that end a run in one line: a wrong setting, a faulty environment, a divergence.

Keys are spelled as the user wrote them. Nothing here prints or exits.
"""

from trainer.config.secrets import redacted

MOST_SHOWN = 80  # characters of a name or a value in a message


def cut(text: str, most: int = MOST_SHOWN) -> str:
    """Return a text of any length for a message, without secrets: half a URL hides none."""
    text = redacted(text)
    return text if len(text) <= most else f"{text[:most]}..."


def install(extra: str) -> str:
    """Return what installs an extra: from the checkout, since PyPI's fedctl is another project."""
    return f"in the checkout of fedctl, run .venv/bin/pip install -e '.[{extra}]'"


class ConfigError(ValueError):
    """A setting that cannot be used: one line, `key: problem; remedy`."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(redacted(f"{key}: {problem}"))
        self.key = key
        self.problem = problem


class EnvironmentFault(RuntimeError):
    """A fault that no setting fixes, in one line: a lost rank or a damaged checkpoint, say."""


class Diverged(EnvironmentFault):
    """A loss or a model that is not finite; no setting is invalid, but some must change."""
