"""The words of a mistake that the schema found: what to write instead, as one writes YAML.

Pydantic's own words about numbers and their limits are plain, and stay; those about types are
Python's. No value is shown that may be a secret, nor what is in a map or a list.
"""

from collections.abc import Mapping
from typing import Any

from trainer.config.errors import cut
from trainer.config.secrets import is_named_like_one

HIDDEN = "(not shown)"

# By pydantic's name for the kind of a mistake.
_SECTION = "write a section, {key}{{SETTING: VALUE}}"
_LIST = "write a list, {key}[A, B]"
_WORDS = {
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "dict_type": "write a map, {key}{{NAME: VALUE}}",
    "list_type": _LIST,
    "missing": "set it; it has no default",
    "model_attributes_type": _SECTION,
    "model_type": _SECTION,
    "string_type": "write text, in quotes",
    "string_too_short": "must not be empty",
    "too_long": "has more than {max_length} items",
    "too_short": "has fewer items than {min_length}",
    "tuple_type": _LIST,
}


def problem(error: Mapping[str, Any], key: str) -> str:
    """Return what is wrong at a key, by the details that pydantic gives of a mistake."""
    if words := _WORDS.get(error["type"]):
        leaf = key.rpartition(".")[2]
        written = "" if leaf.isdecimal() else f"{leaf}: "  # an item of a list has no key
        return words.format(key=written, **error.get("ctx", {}))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":  # as YAML writes them
        message = message.replace("True", "true").replace("False", "false")
    return f"{message[0].lower()}{message[1:]}"


def shown(value: Any, key: str = "") -> str:
    """Return a value for a message: text in quotes, true and null as in YAML, long ones cut."""
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    if any(is_named_like_one(part) for part in key.split(".")):
        return HIDDEN
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return cut(text)
