"""Printed lines with words that differ from run to run, such as the number of a rank."""

import re

# What differs from run to run, by the word that stands for it.
WORDS = {
    "K": r"\d+",  # a rank
    "N": r"\d+",  # a round
    "S": r"[\d.]+",  # seconds
    "PID": r"\d+",
    "PORT": r"\d+",
    "SIZE": r"[\d.]+ GiB",
    "RUN": r"\S*out",
    "FILE": r"\S+",
    "DISK": r"\S+",
    "HOST": r"\S+",
    "REASON": r"[^\n]+",
}


def pattern(text: str) -> str:
    """A regular expression for a line with words in braces."""
    parts = re.split(r"\{(\w+)\}", text)
    return "".join(WORDS[part] if at % 2 else re.escape(part) for at, part in enumerate(parts))


def fits(text: str, line: str) -> bool:
    """Whether a printed line is the one of the table."""
    return re.fullmatch(pattern(text), line) is not None
