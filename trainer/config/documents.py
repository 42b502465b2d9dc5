"""Reading of YAML and JSON text: experiment files, presets, `--set`, sweeps, values, all alike.

No other module reads what people write. PyYAML parses; what a scalar means is decided here, because
YAML 1.1 takes `010` for 8, `1:30` for 90 and `2024-01-01` for a date. What would make another value
than its author meant, or cost unbounded time or memory, is refused in one line.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from trainer.config.errors import ConfigError, cut
from trainer.config.scalars import NULL, REAL, SWITCH, TAG, WHOLE, Problem, scalar, text_of, whole
from trainer.files import not_regular, open_regular

MOST_PATH = 300  # characters of the name of a missing file in a message
MOST_BYTES = 1 << 20  # of a file: the limit of an experiment on a cluster
MOST_VALUES = 50_000  # of a document, each alias counted in full
MOST_DEPTH = 30  # of sections and lists

_NAMED = re.compile(r"(found (?:undefined|duplicate) [a-z ]+) '.*", re.DOTALL)


def is_file(source: str, path: Path) -> bool:
    """Return whether the path that a person named is a file; raise if it is meant to be one."""
    with contextlib.suppress(OSError):  # a name that is too long for a file, say
        if path.is_file():
            return True
    if problem := "is standard input; name a regular file" if source == "-" else not_regular(path):
        raise ConfigError(str(path), problem)
    if "://" in source:  # a path would lose a slash, by which a password in it is recognised
        raise ConfigError(cut(source), "is a URL; download the file, and name that")
    if source.endswith((".yaml", ".yml", ".json")):
        raise ConfigError(cut(str(path), MOST_PATH), "no such file")
    return False


def read(path: Path, key: str | None = None) -> Any:
    """Return the content of a YAML file, or of JSON if its name ends so; `key` is for errors."""
    key = key or str(path)
    if problem := not_regular(path):
        raise ConfigError(key, problem)
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(key, f"cannot be read: {(error.strerror or '').lower()}") from None
    except ValueError as error:  # a name that no file can have
        raise ConfigError(key, f"cannot be read: {error}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(key, f"is larger than {MOST_BYTES >> 20} MiB; is this the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            key, f"cannot be read: not UTF-8 from byte {error.start} on; save it as UTF-8"
        ) from None
    return parse(text, key, is_json=path.suffix == ".json")


def parse(text: str, key: str, *, is_json: bool = False) -> Any:
    """Return the value of a YAML or JSON text; raise a ConfigError of `key` for any other text."""
    try:
        return _plain_json(text) if is_json else _plain_yaml(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"has the character {ord(text[error.position]):#06x}, which YAML does not allow"
        raise ConfigError(key, _at(line, f"not YAML: {problem}")) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or "the text ends too early"
        # Such as an undefined alias, which is a password that begins with *, and has no quotes.
        problem = _NAMED.sub(r"\1; text that begins with *, & or ! needs quotes", problem)
        raise ConfigError(key, _at(mark.line + 1 if mark else 0, f"not YAML: {problem}")) from None
    except json.JSONDecodeError as error:
        raise ConfigError(key, _at(error.lineno, f"not JSON: {error.msg.lower()}")) from None
    except Problem as error:
        raise ConfigError(key, _at(error.line, error.problem)) from None
    except RecursionError:
        raise ConfigError(key, f"is nested deeper than {MOST_DEPTH} levels; flatten it") from None


def dump(value: Any) -> str:
    """Return a value as YAML on one line, which `parse` reads back equal."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=10**9, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _at(line: int, problem: str) -> str:
    return f"line {line}: {problem}" if line else problem


# ---------------------------------------------------------------------------------------------
# YAML


class _Loader(yaml.SafeLoader):
    """PyYAML up to the nodes, with the scalars of YAML 1.2 and the switches of 1.1."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's name and form

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; PyYAML calls itself for each level, so count them."""
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise Problem(
                f"is nested deeper than {MOST_DEPTH} levels; flatten it",
                self.line + 1,
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes each text that this reader, or one of YAML 1.1, would not take for text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, text: str) -> yaml.ScalarNode:
        """Escape the line breaks that PyYAML would write as they are, and read as spaces.

        YAML 1.2 takes 0o17 for a number, of which PyYAML knows nothing.
        """
        style = '"' if re.search("[\x85\u2028\u2029]|^0o", text) else None
        return self.represent_scalar(f"{TAG}str", text, style=style)


_Dumper.add_representer(str, _Dumper.text)


for _name, _pattern, _first in (
    ("null", NULL, ["~", "n", "N", ""]),
    ("bool", SWITCH, list("yYnNtTfFoO")),
    ("int", WHOLE, list("-+0123456789")),
    ("float", REAL, list("-+.0123456789")),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(TAG + _name, re.compile(f"(?:{_pattern.pattern})\\Z"), _first)


def _plain_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    return None if node is None else _Values().of(node, "", 1)


class _Values:
    """Plain values of the nodes of one document, within its budget."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, node: yaml.Node, key: str, depth: int) -> Any:
        """Return the value of a node at a dotted key."""
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > MOST_VALUES:
            raise Problem(f"has more than {MOST_VALUES:,} values, aliases counted in full", line)
        if depth > MOST_DEPTH:  # through aliases, which may even contain themselves
            raise Problem(f"is nested deeper than {MOST_DEPTH} levels; flatten it", line)
        if isinstance(node, yaml.MappingNode):
            _expect(node, "map")
            return dict(self._pairs(node, key, depth))
        if isinstance(node, yaml.SequenceNode):
            _expect(node, "seq")
            return [self.of(item, f"{key}.{i}", depth + 1) for i, item in enumerate(node.value)]
        return scalar(node, key)

    def _pairs(self, node: yaml.MappingNode, key: str, depth: int) -> Iterator[tuple[str, Any]]:
        lines: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise Problem("has a key that is a list or a section; write a name", line)
            if name.value == "<<" and not name.style:
                raise Problem("<<: merging is not supported; use `extends`, or repeat", line)
            text = text_of(name.value, line)
            full = f"{key}.{text}".removeprefix(".")
            if text in lines:
                raise Problem(
                    f"{full} is given twice (lines {lines[text]} and {line}); remove one of them"
                )
            lines[text] = line
            yield text, self.of(value, full, depth + 1)


def _expect(node: yaml.Node, kind: str) -> None:
    if node.tag != TAG + kind:
        raise Problem(f"{node.tag}: unknown tag; remove it", node.start_mark.line + 1)


# ---------------------------------------------------------------------------------------------
# JSON


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON as it is written, where a key may be given twice."""


def _plain_json(text: str) -> Any:
    tree = json.loads(text, object_pairs_hook=_Pairs, parse_int=whole, parse_constant=_no_constant)
    return _built(tree, "", 1)


def _no_constant(name: str) -> Any:
    raise Problem(f"has {name}, which is no number of JSON; write one that is finite")


def _built(value: Any, key: str, depth: int) -> Any:
    """Return the value at a dotted key, with objects as dicts."""
    if depth > MOST_DEPTH:
        raise Problem(f"is nested deeper than {MOST_DEPTH} levels; flatten it")
    if isinstance(value, _Pairs):
        found: dict[str, Any] = {}
        for name, item in value:
            full = f"{key}.{text_of(name)}".removeprefix(".")
            if text_of(name) in found:
                raise Problem(f"{cut(full)} is given twice; remove one of them")
            found[text_of(name)] = _built(item, full, depth + 1)
        return found
    if isinstance(value, list):
        return [_built(item, f"{key}.{i}", depth + 1) for i, item in enumerate(value)]
    return text_of(value) if isinstance(value, str) else value
