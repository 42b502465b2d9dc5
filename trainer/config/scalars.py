"""What a single word of YAML or JSON means: text, a number, a switch or nothing.

YAML 1.1 takes `010` for 8, `1:30` for 90 and `2024-01-01` for a date; here the first two are
refused, and the third is text. Documents are read in documents.py.
"""

import re
from typing import Any

import yaml

from trainer.config.secrets import is_named_like_one

MOST_DIGITS = 30  # of a whole number: more than any setting takes

TAG = "tag:yaml.org,2002:"
WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
REAL = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
NULL = re.compile(r"~|null|Null|NULL|")
_YES = re.compile(r"yes|Yes|YES|true|True|TRUE|on|On|ON")
_NO = re.compile(r"no|No|NO|false|False|FALSE|off|Off|OFF")
SWITCH = re.compile(f"{_YES.pattern}|{_NO.pattern}")
_OLD = yaml.resolver.Resolver()  # of YAML 1.1, with octal numbers and base 60


class Problem(ValueError):
    """What is wrong with a text, and the line, from 1, or 0 if there is none."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


def scalar(node: Any, key: str) -> Any:
    """Return text, a number, a switch or None, by the node's tag; `key` is for messages."""
    kind, text, line = node.tag.removeprefix(TAG), node.value, node.start_mark.line + 1
    if kind in ("str", "!"):
        if not node.style and _is_number_elsewhere(text):
            raise Problem(
                f"{_shown(text, key)} is a number to some readers of YAML, and text to others; "
                "write a number in decimal without leading zeros, and text in quotes",
                line,
            )
        return text_of(text, line)
    if kind == "null" and NULL.fullmatch(text):
        return None
    if kind == "bool" and SWITCH.fullmatch(text):
        return _YES.fullmatch(text) is not None
    if kind == "int" and WHOLE.fullmatch(text):
        return whole(text, line)
    if kind == "float" and REAL.fullmatch(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    tag = _shown(node.tag, key)
    raise Problem(f"{tag}: unknown tag, or not its value; remove it, or quote the text", line)


def _shown(text: str, key: str) -> str:
    return "the value" if is_named_like_one(key) else text[:40]


def _is_number_elsewhere(text: str) -> bool:
    tag = _OLD.resolve(yaml.ScalarNode, text, (True, False))
    return tag in (f"{TAG}int", f"{TAG}float") or text.startswith("0o")


def whole(text: str, line: int = 0) -> int:
    """Return a whole number, of bounded length."""
    if len(text) > MOST_DIGITS:
        raise Problem(f"has a number of {len(text)} digits; at most {MOST_DIGITS} are read", line)
    return int(text)


def text_of(text: str, line: int = 0) -> str:
    """Return the text with JSON's pairs of surrogates joined; a single one is no character."""
    if "\0" in text:
        raise Problem("has a NUL character, which no name and no path can have", line)
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise Problem("has half of a surrogate pair, which is no character", line) from None
