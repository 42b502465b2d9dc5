"""List of all settings: every dotted key with its type, default, unit and help.

It is read from the schema itself, so `fedctl explain`, error messages and docs always agree with
it. No setting is written down here.
"""

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic.fields import FieldInfo

from trainer.config.base import Section
from trainer.config.schema import Experiment
from trainer.config.secrets import is_named_like_one


@dataclass(frozen=True)
class Setting:
    """One documented key; `variant` is the choice that it belongs to, such as `sync.name=gwpf`."""

    key: str
    variant: str
    type: str
    default: Any
    unit: str
    help: str


def sections(annotation: Any) -> list[type[Section]]:
    """Return the sections that a field's annotation allows: none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [s for option in typing.get_args(annotation) for s in sections(option)]
    return []


def item_section(annotation: Any) -> type[Section] | None:
    """Return the section that the items of a list are; None if they are plain values."""
    if typing.get_origin(annotation) is tuple:
        return next(iter(sections(typing.get_args(annotation)[0])), None)
    return None


def tag(section: type[Section]) -> str:
    """Return the value of `name` that selects this section among its siblings."""
    (name,) = typing.get_args(section.model_fields["name"].annotation)
    return str(name)


def settings() -> Iterator[Setting]:
    """Yield every setting, in the order of the schema; list items have index 0."""
    seen: set[tuple[str, str]] = set()
    for found in _settings(Experiment, "", ""):
        place = (found.key, found.variant)
        if place not in seen:  # several choices of a section may have one below it in common
            seen.add(place)
            yield found


def _settings(section: type[Section], prefix: str, variant: str) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        key, choices = prefix + name, sections(field.annotation)
        if not choices:
            yield _describe(key, variant, field)
        for choice in choices:
            chosen = f"{key}.name={tag(choice)}" if len(choices) > 1 else variant
            yield from _settings(choice, key + ".", chosen)
        if item := item_section(field.annotation):
            yield from _settings(item, f"{key}.0.", variant)


@cache  # reading an experiment asks for it several times, and walks the whole schema each time
def unions(section: type[Section] = Experiment, prefix: str = "") -> Mapping[str, str]:
    """Return the keys whose `name` selects among sections, each with the name of the default."""
    found: dict[str, str] = {}
    for name, field in section.model_fields.items():
        choices = sections(field.annotation)
        if len(choices) > 1:
            found[prefix + name] = tag(type(field.default))
        for choice in choices:
            found |= unions(choice, f"{prefix}{name}.")
    return found


def owners(
    key: str, section: type[Section] = Experiment, prefix: str = "", variant: str = ""
) -> Iterator[str]:
    """Yield the choices, such as `sync.name=gwpf`, whose setting or section `key` is."""
    for name, field in section.model_fields.items():
        here, choices = prefix + name, sections(field.annotation)
        if here == key and variant:
            yield variant
        for choice in choices if key.startswith(f"{here}.") else ():
            chosen = f"{here}.name={tag(choice)}" if len(choices) > 1 else variant
            yield from owners(key, choice, f"{here}.", chosen)


def suggestion(key: str, *more: str) -> str:
    """Return a remedy for an unknown key, such as `; did you mean ...?`, or an empty string.

    more: keys that are no settings, but may be what was meant.
    """
    if is_named_like_one(key):
        return (
            "; no setting holds a secret: pass it in an environment variable such as "
            "WANDB_API_KEY or MLFLOW_TRACKING_PASSWORD, on a cluster from a Secret"
        )
    if others := dict.fromkeys(owners(key)):  # exists, but belongs to another choice
        return f"; it belongs to {' or '.join(others)}"
    known = list(dict.fromkeys(setting.key for setting in settings()))
    close = get_close_matches(key, [*known, *more], n=1, cutoff=0.8)
    same_leaf = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
    siblings = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    best = close or same_leaf or get_close_matches(key, siblings, n=1, cutoff=0.6)
    return f"; did you mean {best[0]}?" if best and best[0] != key else ""


def _describe(key: str, variant: str, field: FieldInfo) -> Setting:
    extra = field.json_schema_extra
    unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
    default = None if field.is_required() else field.default
    if isinstance(default, tuple):
        default = [
            d.model_dump(exclude_none=True) if isinstance(d, Section) else d for d in default
        ]
    type_text = _type_text(field.annotation, field.metadata)
    return Setting(key, variant, type_text, default, unit, field.description or "")


_NAMES = {bool: "true or false", float: "number", int: "int", str: "text"}


def _type_text(annotation: Any, limits: Iterable[Any]) -> str:
    """Return a type with its limits in words, such as `int, 0 to 9`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        field = next((item for item in inner[1:] if isinstance(item, FieldInfo)), None)
        return _type_text(inner[0], field.metadata if field else ())
    if origin is typing.Literal:
        return " | ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):  # each is optional
        (chosen,) = (option for option in inner if option is not type(None))
        return f"{_type_text(chosen, limits)}, or empty"
    if origin is tuple:
        name, comma, bounds = _type_text(inner[0], ()).partition(", ")
        return f"list of {name}s{comma}{bounds}"
    return ", ".join([_NAMES.get(annotation, "section"), *_bounds(limits)])


def _bounds(limits: Iterable[Any]) -> Iterator[str]:
    names = ("ge", "gt", "le", "lt", "multiple_of")
    known = {
        name: getattr(limit, name) for limit in limits for name in names if hasattr(limit, name)
    }
    if {"ge", "le"} <= known.keys():
        yield f"{_number(known.pop('ge'))} to {_number(known.pop('le'))}"
    words = ("at least", "above", "at most", "below", "a multiple of")
    yield from (
        f"{word} {_number(known[n])}" for n, word in zip(names, words, strict=True) if n in known
    )


def _number(value: float) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value).replace("e+", "e")
