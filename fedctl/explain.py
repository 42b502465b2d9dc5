"""Documentation of settings: the resolved experiment, the meaning of a key, the schema."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import Any

from trainer.config import documents
from trainer.config.errors import ConfigError
from trainer.config.keys import Setting, settings, suggestion, unions
from trainer.config.load import flatten
from trainer.config.schema import Experiment

DEFAULT = "default"
WIDTH = 96  # of a line of help


def tree_of(experiment: Experiment) -> dict[str, Any]:
    """Return the settings as plain values in the schema's order; list items without empty keys."""
    tree: dict[str, Any] = _name_first(experiment.model_dump(mode="json"))
    for phase in tree["schedule"]["phases"]:
        for key in [key for key, value in phase.items() if value is None]:
            del phase[key]
    return tree


def _name_first(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    keys = sorted(value, key=lambda key: key != "name")  # the rest stays in its order
    return {key: _name_first(value[key]) for key in keys}


def leaf(value: Any) -> str:
    """Return one value as YAML on one line."""
    return documents.dump(value)


def as_yaml(experiment: Experiment, origins: Mapping[str, str] | None, width: int) -> str:
    """Return the experiment as YAML that `load` reads back equal.

    With `origins`, each key has its meaning as a comment above it, and the origin of its value next
    to it, or above it too if the line would be wider than a terminal of this width.
    """
    tree = tree_of(experiment)
    if origins is None:
        return "\n".join(_yaml_lines(tree, "", "", {}, {}, width))
    chosen = _choices(tree)
    known = {setting.key: setting for setting in settings() if _belongs(setting, chosen)}
    return "\n".join(_yaml_lines(tree, "", "", known, origins, width))


def _yaml_lines(
    tree: Mapping[str, Any],
    prefix: str,
    indent: str,
    known: Mapping[str, Setting],
    origins: Mapping[str, str],
    width: int,
) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, f"{prefix}{name}.", indent + "  ", known, origins, width)
            continue
        line, key = f"{indent}{name}: {leaf(value)}", prefix + name
        if setting := known.get(key):
            yield from textwrap.wrap(
                _help(setting),
                min(width, WIDTH),
                initial_indent=f"{indent}# ",
                subsequent_indent=f"{indent}# ",
            )
            origin = f"# {origins.get(key, DEFAULT)}"
            if len(f"{line:<40}  {origin}") > width:
                yield indent + origin
            else:
                line = f"{line:<40}  {origin}"
        yield line


def reasons(experiment: Experiment, origins: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return for each key its value, the value's origin, and the setting's help."""
    tree = tree_of(experiment)
    chosen = _choices(tree)
    known = {setting.key: setting for setting in settings() if _belongs(setting, chosen)}
    return {
        key: {
            "value": value,
            "origin": origins.get(key, DEFAULT),
            "help": _help(known[key]) if key in known else "",
        }
        for key, value in flatten(tree)
    }


def _help(setting: Setting) -> str:
    return f"{setting.help} [{setting.unit}]" if setting.unit else setting.help


def _choices(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return every section's `name`, by the section's key."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            if "name" in value:
                found[prefix + key] = str(value["name"])
            found |= _choices(value, f"{prefix}{key}.")
    return found


def _belongs(setting: Setting, chosen: Mapping[str, str]) -> bool:
    section, _, name = setting.variant.partition(".name=")
    return not setting.variant or chosen.get(section) == name


def find(key: str) -> list[Setting]:
    """Return the settings of a key or a section; all settings for an empty key."""
    wanted = ".".join("0" if part.isdigit() else part for part in key.split("."))
    found = [s for s in settings() if not key or s.key == wanted or s.key.startswith(f"{wanted}.")]
    if found:
        return list(_merged(found))
    sections = {s.key[:i] for s in settings() for i, sign in enumerate(s.key) if sign == "."}
    close = get_close_matches(key, sections, n=1, cutoff=0.75)
    hint = f"; did you mean {close[0]}?" if close else suggestion(key)
    raise ConfigError(key, f"unknown key{hint or '; `fedctl explain` lists all keys'}")


def _merged(found: list[Setting]) -> Iterator[Setting]:
    """Yield one entry for what several choices share, and one for each `name` that chooses."""
    choosing = {f"{section}.name": default for section, default in unions().items()}
    entries: dict[tuple[str, ...], list[Setting]] = {}
    for setting in found:
        meaning = (setting.type, leaf(setting.default), setting.help)
        shared = (setting.key,) if setting.key in choosing else (setting.key, *meaning)
        entries.setdefault(shared, []).append(setting)
    for (key, *_), group in entries.items():
        if key in choosing:
            kinds = " | ".join(setting.type for setting in group)
            yield Setting(key, "", kinds, choosing[key], "", "chooses the kind")
        else:
            yield replace(group[0], variant=" or ".join(setting.variant for setting in group))


def as_text(found: list[Setting], width: int) -> str:
    """Return each setting as a heading with its type and default, then its help, in this width."""
    paragraphs = []
    for setting in found:
        default = "" if setting.default is None else f", default {leaf(setting.default)}"
        only = f"  (with {setting.variant})" if setting.variant else ""
        heading = f"{setting.key}: {setting.type}{default}{only}"
        paragraphs.append(
            textwrap.fill(heading, width, subsequent_indent="    ", break_on_hyphens=False)
        )
        if help_text := _help(setting):
            paragraphs.append(
                textwrap.fill(
                    help_text, min(width, WIDTH), initial_indent="    ", subsequent_indent="    "
                )
            )
    return "\n".join(paragraphs)


def as_json(found: list[Setting]) -> str:
    """Return the same as a JSON list of objects."""
    return json.dumps([asdict(setting) for setting in found], indent=2, default=str)


def schema() -> str:
    """Return the JSON schema of an experiment file, including the preset that it extends."""
    tree = Experiment.model_json_schema()
    extends = {
        "type": "string",
        "description": "a preset or file whose settings are the base of this one's",
    }
    tree["properties"] = {"extends": extends, **tree["properties"]}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **tree}, indent=2)
