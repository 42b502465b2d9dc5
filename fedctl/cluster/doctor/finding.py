"""The result of a check: a level, a sentence, a remedy."""

from dataclasses import dataclass, replace

OK, WARN, FAIL, UNKNOWN = "ok", "warn", "fail", "unknown"


@dataclass(frozen=True)
class Finding:
    """A result. `warn`: some runs will not work; `fail`: no run will; `unknown`: no permission."""

    level: str
    text: str
    remedy: str = ""
    check: str = ""

    def of(self, check: str) -> "Finding":
        """Return the same finding under the name of its check."""
        return replace(self, check=check)
