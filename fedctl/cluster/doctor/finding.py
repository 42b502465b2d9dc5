"""Owns what a check of a cluster comes to: a level, a sentence, a remedy."""

from dataclasses import dataclass, replace

OK, WARN, FAIL, UNKNOWN = "ok", "warn", "fail", "unknown"


@dataclass(frozen=True)
class Finding:
    """`warn`: some runs will not do; `fail`: none will; `unknown`: one may not look."""

    level: str
    text: str
    remedy: str = ""
    check: str = ""

    def of(self, check: str) -> "Finding":
        """The same, under the name of its check."""
        return replace(self, check=check)
