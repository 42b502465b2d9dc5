"""The runs of a sweep: the settings of each, and its name; no two are the same.

A run is the sweep's base with some settings laid over it, as by `fedctl run BASE --set ...`. The
digest of the result is its identity; the name is for people.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from fedctl import bundled
from fedctl.explain import leaf
from fedctl.local import preflight
from fedctl.sweep.file import BASE, MOST_RUNS, Sweep
from trainer.config.errors import ConfigError
from trainer.config.fit import ineffective
from trainer.config.load import load, parse_set
from trainer.config.schema import Experiment

LONGEST_NAME = 100  # of a folder, in characters
SEED, NAME = "seed", "name"


@dataclass(frozen=True)
class Variant:
    """One run of a sweep; `group` is its name without the seed."""

    name: str
    group: str
    experiment: Experiment
    digest: str


def variants(sweep: Sweep, sets: Sequence[str]) -> list[Variant]:
    """Return every run of the sweep; raise a ConfigError if one is invalid or two are the same."""
    count = math.prod(map(len, sweep.grid.values())) * (len(sweep.runs) or 1)
    if (count := count * (len(sweep.seeds) or 1)) > MOST_RUNS:
        raise ConfigError("grid", f"{count:,} runs; at most {MOST_RUNS:,} are one sweep")
    chosen = list(_choices(sweep))
    typed = dict(map(parse_set, sets))
    _set_leaves_what_varies(typed, chosen)
    seeds_vary = _varies(SEED, chosen)
    found = []
    for choice, group in zip(chosen, _names(sweep, chosen), strict=True):
        seed = f"seed={choice[SEED]}" if seeds_vary and SEED in choice else ""
        name = ",".join(filter(None, [group, seed]))
        try:
            experiment = _experiment(sweep, choice, typed)
        except ConfigError as error:
            if not name:
                raise
            raise ConfigError(error.key, f"{error.problem} (in run {name})") from None
        default = experiment.name
        found.append(Variant(name or default, group or default, experiment, experiment.digest()))
    _all_differ(found)
    _refuse_ineffective(found, {*sweep.set, *_keys(chosen), *typed})
    return _unambiguous(found)


def _choices(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Yield the settings that are a run's own, by key; `name` is the author's name for it."""
    for index, entry in enumerate(sweep.runs):
        if both := [key for key in entry if key in sweep.grid]:
            raise ConfigError(
                f"runs.{index}.{both[0]}", "the grid has this key too; drop one of them"
            )
    if sweep.seeds and (SEED in sweep.grid or any(SEED in entry for entry in sweep.runs)):
        raise ConfigError(SEED, "the sweep has seeds too; drop one of them")
    grid = [[(key, value) for value in values] for key, values in sweep.grid.items()]
    seeds = [{SEED: seed} for seed in sweep.seeds] or [{}]
    for entry, combination, seed in product(sweep.runs or ({},), product(*grid), seeds):
        yield {**entry, **dict(combination), **seed}


def _experiment(sweep: Sweep, choice: Mapping[str, Any], typed: Mapping[str, Any]) -> Experiment:
    base = choice.get(BASE, sweep.base)
    own = {key: value for key, value in choice.items() if key not in (BASE, NAME)}
    layers = [*sweep.set.items(), *own.items(), *typed.items()]
    # A section's kind first: choosing another one drops the settings of the one before.
    layers.sort(key=lambda layer: not _chooses_a_kind(*layer))
    experiment, _origins = load(
        {} if base is None else str(base),
        sets=[f"{key}={leaf(value)}" for key, value in layers],
        presets=bundled.PRESETS,
        ineffective_allowed=True,  # in some of the runs
    )
    return preflight.with_absolute_data(experiment)


def _chooses_a_kind(key: str, value: Any) -> bool:
    return key.endswith(f".{NAME}") or (isinstance(value, Mapping) and NAME in value)


def _set_leaves_what_varies(typed: Mapping[str, Any], chosen: list[dict[str, Any]]) -> None:
    for key in typed:
        for own in _keys(chosen):
            if f"{own}.".startswith(f"{key}.") or f"{key}.".startswith(f"{own}."):
                raise ConfigError(key, f"the sweep itself sets {own}; edit its file")


def _all_differ(found: list[Variant]) -> None:
    seen: dict[str, Variant] = {}
    for variant in found:
        if twin := seen.get(variant.digest):
            names = " and ".join(dict.fromkeys([twin.name, variant.name]))
            raise ConfigError(names, f"two runs of the same settings (digest {twin.digest})")
        seen[variant.digest] = variant


def _refuse_ineffective(found: list[Variant], given: set[str]) -> None:
    """Raise if a setting that the sweep gives has no effect in any run."""
    reasons = [dict(ineffective(variant.experiment)) for variant in found]
    for key, problem in reasons[0].items():
        ours = any(f"{key}.".startswith(f"{own}.") for own in given)
        if ours and all(key in others for others in reasons):
            raise ConfigError(key, f"{problem} (in every run)")


# ---------------------------------------------------------------------------------------------
# names


def _keys(chosen: list[dict[str, Any]]) -> dict[str, None]:
    return dict.fromkeys(key for choice in chosen for key in choice)


def _names(sweep: Sweep, chosen: list[dict[str, Any]]) -> list[str]:
    """Return for each run what varies except the seed: `algorithm=fedga,lr=0.1`; or nothing."""
    varying = [key for key in _keys(chosen) if key not in (SEED, NAME) and _varies(key, chosen)]
    names = []
    for choice in chosen:
        # An entry's own name stands for all of its settings; those of the grid are added.
        parts = [_clean(choice[NAME])] if NAME in choice else []
        keys = [key for key in varying if key in choice and (not parts or key in sweep.grid)]
        names.append(
            ",".join([*parts, *(_part(key, choice[key], chosen, varying) for key in keys)])
        )
    return names


def _varies(key: str, chosen: list[dict[str, Any]]) -> bool:
    return len({leaf(choice[key]) if key in choice else None for choice in chosen}) > 1


def _part(key: str, value: Any, chosen: list[dict[str, Any]], varying: list[str]) -> str:
    if key == BASE:
        return _clean(Path(str(value)).stem)
    if isinstance(value, Mapping):
        kinds = [leaf(c[key].get(NAME)) for c in chosen if isinstance(c.get(key), Mapping)]
        distinct = {leaf(c[key]) for c in chosen if key in c}
        if NAME in value and len(set(kinds)) == len(distinct):
            value = value[NAME]
    return f"{_short(key, varying)}={_clean(value)}"


def _short(key: str, varying: list[str]) -> str:
    """Return the key's last word, or all of it if another key ends in the same word."""
    key = key.removesuffix(f".{NAME}")
    last = key.rpartition(".")[2]
    same = [other for other in varying if other.removesuffix(f".{NAME}").rpartition(".")[2] == last]
    return last if len(same) == 1 else key


def _clean(value: Any) -> str:
    """Return a value in a form that a folder's name can have."""
    if isinstance(value, Mapping):
        words = [_clean(value[NAME])] if NAME in value else []
        words += [f"{key}{_clean(item)}" for key, item in value.items() if key != NAME]
        return "+".join(words)
    if isinstance(value, list):
        return "_".join(map(_clean, value)) or "none"
    text = value if isinstance(value, str) else leaf(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "none"


def _unambiguous(found: list[Variant]) -> list[Variant]:
    """Add a piece of a digest to a name that is too long or stands for two things."""
    names = [variant.name for variant in found]
    seedless = [v.experiment.model_copy(update={SEED: 0}).digest()[:6] for v in found]
    settings: dict[str, set[str]] = {}
    for variant, digest in zip(found, seedless, strict=True):
        settings.setdefault(variant.group, set()).add(digest)
    result = []
    for variant, digest in zip(found, seedless, strict=True):
        name, group = variant.name, variant.group
        if names.count(name) > 1 or len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 7]}-{variant.digest[:6]}"
        if len(settings[group]) > 1:
            group = f"{group}-{digest}"
        result.append(replace(variant, name=name, group=group))
    return result
