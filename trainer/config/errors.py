"""Owns the one error a user's setting can raise; the key is spelled as the user wrote it."""


class ConfigError(ValueError):
    """A setting that cannot be used: one line, `key: problem`, with the remedy in the problem."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class EnvironmentFault(RuntimeError):
    """What no setting mends, in one line: a lost rank, a taken port, a damaged checkpoint."""
