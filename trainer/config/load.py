"""Loading of an experiment from text: defaults < preset (`extends`) < file < `--set`.

What a text means is decided in documents.py. Each mistake is reported in one line, with the user's
key.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.config import documents
from trainer.config.errors import ConfigError, cut
from trainer.config.fit import ineffective
from trainer.config.keys import settings, suggestion, unions
from trainer.config.paths import expanded
from trainer.config.schema import Experiment, covers
from trainer.config.wording import problem, shown

Tree = dict[str, Any]

SWEEP = {"base", "grid", "runs", "seeds"}  # keys by which a sweep is recognised
MOST_EXTENDED = 20  # files, each extending the next


@dataclass
class Layers:
    """Settings merged from several sources, with the source of each dotted key's value."""

    tree: Tree = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def add(self, layer: Mapping[str, Any], origin: str) -> None:
        """Merge `layer` on top; a new choice of a union's `name` drops the old one's settings."""
        for key, value in flatten(layer):
            _check_key(key)
            if key.endswith(".name"):
                self._choose(key.removesuffix(".name"), value)
        for key, value in flatten(layer):
            put(self.tree, key, value)
            self.origins[key] = origin

    def _choose(self, section: str, name: Any) -> None:
        default = unions().get(section)
        if default is None:
            return
        parent, _, leaf = section.rpartition(".")
        holder = get(self.tree, parent)
        chosen = holder.get(leaf) if isinstance(holder, dict) else None
        if isinstance(chosen, dict) and chosen.get("name", default) != name:
            del holder[leaf]
            for key in [k for k in self.origins if k.startswith(section + ".")]:
                del self.origins[key]


def load(
    source: str | Path | Mapping[str, Any],
    *,
    sets: Iterable[str] = (),
    presets: Path | None = None,
    ineffective_allowed: bool = False,
) -> tuple[Experiment, dict[str, str]]:
    """Read a preset (by name), a file or a mapping; return the experiment and each key's origin.

    Raises ConfigError for every mistake that the user can fix. Among them is a setting without
    effect, from `--set` or the file itself; presets, and files that others extend, may carry one.
    """
    layers = Layers()
    _read(source, presets, layers)
    for text in sets:
        key, value = parse_set(text)
        layers.add(_nest(key, value, layers.tree), "--set")
    experiment = validate(layers.tree)
    if not ineffective_allowed:
        _refuse_ineffective(experiment, layers.origins, f"file {source}")
    return experiment, layers.origins


def _refuse_ineffective(experiment: Experiment, origins: Mapping[str, str], file: str) -> None:
    every = [key for key, _ in flatten(experiment.model_dump(mode="json"))]
    # A file with every setting was printed by fedctl, and tells nothing of what its author meant.
    asked = ("--set",) if all(origins.get(key) == file for key in every) else ("--set", file)
    for key, why in ineffective(experiment):
        own = [name for name in origins if covers(key, name) or covers(name, key)]  # or its list's
        if any(origins[name] in asked for name in own):
            raise ConfigError(key, why)


def validate(tree: Tree) -> Experiment:
    """Return the typed experiment; raise a ConfigError with the first key that does not fit."""
    for section, default in unions().items():
        if isinstance(chosen := get(tree, section), dict):
            chosen.setdefault("name", default)
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, tree) from None


def parse_set(text: str) -> tuple[str, Any]:
    """Split `key=value`, and read the value as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(cut(text), "write --set KEY=VALUE, such as --set rounds=3")
    _check_key(key)
    try:
        return key, documents.parse(value, key)
    except ConfigError as error:
        problem = error.problem.removeprefix("line 1: ")
        if not problem.startswith("not YAML"):
            raise ConfigError(key, problem) from None
        raise ConfigError(key, f"{shown(value, key)} is not a YAML value; quote it") from None


def _check_key(key: str) -> None:
    """Refuse a dotted key that is that of no setting, and would be a mistake without a name."""
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ConfigError(cut(key), "unknown key; it is not UTF-8") from None
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(repr(cut(key)), "has an empty name; write names with dots between them")
    if len(parts) > documents.MOST_DEPTH:
        raise ConfigError(
            cut(key), f"is nested deeper than {documents.MOST_DEPTH} levels; flatten it"
        )


def _read(
    source: str | Path | Mapping[str, Any],
    presets: Path | None,
    layers: Layers,
    folder: Path | None = None,
    above: tuple[tuple[Path, str], ...] = (),
) -> None:
    """Add a source on top of what it extends; `above`: the files that led here, and their names."""
    if isinstance(source, Mapping):
        tree, origin, inside = dict(source), "experiment", above
    else:
        try:
            path, origin = _find(source, presets, folder)
        except ConfigError as error:
            if not above:
                raise
            raise ConfigError(f"{above[-1][1]}: extends", str(error)) from None
        folder, inside = path.parent, (*above, (path.resolve(), str(source)))
        if path.resolve() in dict(above):
            names = " -> ".join(name for _, name in inside)
            raise ConfigError("extends", f"{names} is a cycle; remove one `extends`")
        if len(inside) > MOST_EXTENDED:
            raise ConfigError(
                "extends", f"{path} is extended over {MOST_EXTENDED} steps; merge some of the files"
            )
        tree = documents.read(path)
        if not isinstance(tree, dict):
            raise ConfigError(str(path), "an experiment is a mapping of keys to values")
        if SWEEP & tree.keys():
            raise ConfigError(str(path), "is a sweep, several runs, and not an experiment")
        _refuse_twice(tree, path)
    base = tree.pop("extends", None)
    if base is not None:
        if not isinstance(base, str) or not base:
            key = f"{inside[-1][1]}: extends" if inside else "extends"
            raise ConfigError(key, f"{shown(base)}: write the name of a preset or a file")
        _read(base, presets, layers, folder, inside)
    layers.add(tree, origin)


def _refuse_twice(tree: Tree, path: Path) -> None:
    """Refuse `optimizer.lr` next to the same key in a section `optimizer`, or to `optimizer: 3`."""
    keys = [key for key, _ in flatten(tree)]
    sections = {key[:at] for key in keys for at, sign in enumerate(key) if sign == "."}
    for key in keys:
        if key in sections or keys.count(key) > 1:
            raise ConfigError(str(path), f"{cut(key)} is given twice; remove one of them")


def _find(source: str | Path, presets: Path | None, folder: Path | None) -> tuple[Path, str]:
    name = str(source)
    if presets and name in preset_names(presets):
        return presets / f"{name}.yaml", f"preset {name}"
    path = located(source, folder)
    if documents.is_file(name, path):
        return path, f"file {path}"
    close = get_close_matches(cut(name), preset_names(presets) if presets else [], n=1)
    hint = f"did you mean {close[0]}?" if close else "`fedctl presets` lists the presets"
    raise ConfigError(cut(name), f"neither a preset nor a file; {hint}")


def preset_names(presets: Path) -> list[str]:
    """Return the names of the presets in a folder."""
    return sorted(path.stem for path in presets.glob("*.yaml"))


def located(source: str | Path, folder: Path | None) -> Path:
    """Return the path of a file that a file in `folder` names, relative to that folder."""
    path = source if isinstance(source, Path) else expanded(cut(source), source)
    return path if folder is None else folder / path


# ---------------------------------------------------------------------------------------------
# trees by dotted key


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves with their dotted keys; lists are leaves."""
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def get(tree: Any, key: str) -> Any:
    """Return the value at a dotted key (the tree itself for an empty one), or None."""
    for part in filter(None, key.split(".")):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def put(tree: Tree, key: str, value: Any) -> None:
    """Set the value at a dotted key, and create the sections above it if they are missing."""
    *parents, leaf = key.split(".")
    for part in parents:
        below = tree.get(part)
        if not isinstance(below, dict):
            below = tree[part] = {}
        tree = below
    tree[leaf] = value


def _nest(key: str, value: Any, tree: Tree) -> Tree:
    """Return one `--set` as a layer; `phases.0.steps` gives a new list with that item changed."""
    parts = key.split(".")
    index = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    layer: Tree = {}
    if index is None:
        put(layer, key, value)
        return layer
    owner = ".".join(parts[:index])
    items = get(tree, owner) or get(Experiment().model_dump(mode="json", exclude_none=True), owner)
    if not isinstance(items, list | tuple) or int(parts[index]) >= len(items):
        raise ConfigError(key, f"{owner} has no item {parts[index]}; items count from 0")
    items = [dict(item) if isinstance(item, Mapping) else item for item in items]
    rest = ".".join(parts[index + 1 :])
    if rest and isinstance(items[int(parts[index])], dict):
        put(items[int(parts[index])], rest, value)
    else:
        items[int(parts[index])] = value
    put(layer, owner, items)
    return layer


def _explain(error: ValidationError, tree: Tree) -> ConfigError:
    """Return the first mistake with the user's own key: pydantic's path without union tags."""
    first = error.errors(include_url=False)[0]
    parts: list[str] = []
    here: Any = tree
    for part in first["loc"]:
        if isinstance(here, dict) and part not in here and part == here.get("name"):
            continue
        parts.append(str(part))
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            here = None
    key = ".".join(parts)
    if first["type"] == "extra_forbidden":
        return ConfigError(cut(key), f"unknown key{suggestion(key, 'extends')}")
    if first["type"] == "union_tag_invalid":
        return ConfigError(
            f"{key}.name", f"{shown(here['name'])} is not one of {first['ctx']['expected_tags']}"
        )
    if first["type"] == "value_error":  # a rule about several keys names them in its message
        message = first["msg"].removeprefix("Value error, ")
        return ConfigError(key, message) if key else ConfigError(*message.split(": ", 1))
    if isinstance(here, str) and f"{key}.name" in {setting.key for setting in settings()}:
        leaf = key.rpartition(".")[2]  # such as `codec: int8`
        return ConfigError(key, f"{shown(here, key)}: write it as {leaf}: {{name: {here}}}")
    return ConfigError(key, f"{shown(here, key)}: {problem(first, key)}")
