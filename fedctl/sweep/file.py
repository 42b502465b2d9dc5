"""The sweep file: its keys, and how it is read. What it stands for is in variants.py."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator

from fedctl import bundled, explain
from fedctl.report import table
from trainer.config import documents, load
from trainer.config.base import Section, setting
from trainer.config.errors import ConfigError, cut
from trainer.config.wording import problem, shown

BASE = "base"  # a preset or file, by this name also in the grid and in single runs
MOST_RUNS = 10_000  # of a sweep
X = Literal["bytes", "rounds", "time"]
Share = Annotated[float, Field(ge=0, le=1)]


class Report(Section):
    """Contents of the combined report of a sweep."""

    x: tuple[X, ...] = setting(
        ("bytes", "rounds", "time"), help="x axes of the accuracy figures", min_length=1
    )
    columns: tuple[tuple[str, str], ...] = setting(
        (),
        help="the table's columns: settings and results in a list, or by their headings",
    )

    marks: tuple[Share, ...] = setting(
        (), help="accuracies that the figures mark with a line, such as a paper's best"
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _headings_are_optional(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return tuple(value.items())
        if isinstance(value, list | tuple) and all(isinstance(key, str) for key in value):
            return tuple(("", key) for key in value)
        raise ValueError("write a list of columns, or a mapping of headings to columns")

    @field_validator("columns")
    @classmethod
    def _columns_exist(cls, value: Any) -> Any:
        for key in (key for _, key in value if key not in table.NAMES):
            try:
                explain.find(key)
            except ConfigError as error:
                close = get_close_matches(key, table.NAMES, n=1)
                problem = f"unknown; did you mean {close[0]}?" if close else error.problem
                raise ConfigError(
                    key, f"{problem} (besides settings: {', '.join(table.NAMES)})"
                ) from None
        return value


class Sweep(Section):
    """Several experiments: what they share, and what varies."""

    name: str = setting(
        "", help="name of the sweep, whose runs go to runs/NAME; default: the file's name"
    )
    description: str = setting("", help="what the sweep shows, in one line")
    base: str | None = Field(
        None,
        validation_alias=AliasChoices("base", "extends"),
        description="a preset or file that all runs start from",
    )
    set: dict[str, Any] = setting({}, help="settings that all runs share, by dotted key")
    grid: dict[str, list[Any]] = setting({}, help="values by dotted key; every combination runs")
    runs: tuple[dict[str, Any], ...] = setting(
        (), help="settings of single runs by dotted key, each combined with the grid"
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=2**63 - 1)], ...] = setting(
        (), help="every run once for each seed; a number n means 1 to n"
    )
    report: Report = setting(Report(), help="the combined report")

    @field_validator("seeds", mode="before")
    @classmethod
    def _a_number_counts(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError("a number of seeds starts at 1")
            if value > MOST_RUNS:
                raise ValueError(f"{value} is too many; at most {MOST_RUNS:,}, or list them")
            return tuple(range(1, value + 1))
        if isinstance(value, list | tuple):
            return tuple(value)
        raise ValueError("write a list of seeds, or their number")

    @field_validator("grid")
    @classmethod
    def _each_key_has_values(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if empty := [key for key, values in value.items() if not values]:
            raise ValueError(f"{empty[0]} has no values; give it some, or remove it")
        return value


def read(source: str) -> Sweep:
    """Read the sweep of this name or in this file; raise a ConfigError for the first wrong key."""
    path = _find(source)
    tree = documents.read(path, source)
    if not isinstance(tree, dict):
        raise ConfigError(source, "a sweep is a mapping of keys to values")
    if empty := [key for key in ("grid", "runs", "seeds") if tree.get(key) in ([], {})]:
        raise ConfigError(empty[0], "is empty; give it some values, or remove it")
    try:
        sweep = Sweep.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, tree) from None
    _refuse_other_names(sweep)
    own = {} if sweep.name else {"name": path.stem}
    return sweep.model_copy(update=own | _with_bases_located(sweep, path.parent))


def _refuse_other_names(sweep: Sweep) -> None:
    """Raise if a run's name, or a base, is no text: as one it would be that of another run."""
    for index, entry in enumerate(sweep.runs):
        name = entry.get("name", "")
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ConfigError(f"runs.{index}.name", f"{shown(name)}: write a name")
    places = [(f"grid.{BASE}.{i}", base) for i, base in enumerate(sweep.grid.get(BASE, []))]
    places += [(f"runs.{i}.{BASE}", entry.get(BASE, "")) for i, entry in enumerate(sweep.runs)]
    for key, base in places:
        if not isinstance(base, str | None):
            raise ConfigError(key, f"{shown(base)}: write the name of a preset or a file")


def _with_bases_located(sweep: Sweep, folder: Path) -> dict[str, Any]:
    """Return the parts of a sweep that name bases, whose files are relative to the sweep's."""

    def located(base: Any) -> Any:
        if base is None or base in load.preset_names(bundled.PRESETS):
            return base
        return str(load.located(str(base), folder))

    def inside(tree: dict[str, Any]) -> dict[str, Any]:
        return {**tree, BASE: located(tree[BASE])} if BASE in tree else tree

    grid = sweep.grid
    if BASE in grid:
        grid = {**grid, BASE: [located(base) for base in grid[BASE]]}
    return {"base": located(sweep.base), "grid": grid, "runs": tuple(map(inside, sweep.runs))}


def _find(source: str) -> Path:
    bundled_file = bundled.SWEEPS / f"{source}.yaml"
    if bundled_file.is_file():
        return bundled_file
    path = load.located(source, None)
    if documents.is_file(source, path):
        return path
    if source in bundled.presets():
        raise ConfigError(source, f"is a preset, one run; start it with: fedctl run {source}")
    close = get_close_matches(cut(source), bundled.sweeps(), n=1)
    hint = f"did you mean {close[0]}?" if close else "`fedctl presets` shows the sweeps"
    raise ConfigError(cut(source), f"neither a sweep nor a file; {hint}")


def _explain(error: ValidationError, tree: dict[str, Any]) -> ConfigError:
    """Return the first mistake, by the key as it was written."""
    first = error.errors(include_url=False)[0]
    *section, leaf = map(str, first["loc"])
    key = ".".join([*section, leaf])
    if first["type"] == "extra_forbidden":
        known = (Report if section else Sweep).model_fields
        close = get_close_matches(leaf, known, n=1)
        hint = f"did you mean {'.'.join([*section, close[0]])}?" if close else _hint(key, known)
        return ConfigError(key, f"unknown key; {hint}")
    return ConfigError(key, problem(first, key))


def _hint(key: str, known: Any) -> str:
    return f"a sweep has {', '.join(known)}; settings go into set, grid or runs"
