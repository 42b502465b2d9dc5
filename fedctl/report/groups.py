"""Groups of runs that differ only by their seed, and their statistics."""

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedctl.report.rows import Row, perplexity, tested, uploaded
from fedctl.report.runs import Run, label_of
from fedctl.report.summary import leaves, summary

NOT_WHAT_RUNS = ("seed", "name", "description")  # settings that a group's runs need not share
SEED_IN_NAME = re.compile(r"(^|[,_-])seed[=_-]?\d+")

Point = tuple[float, "Spread"]


@dataclass(frozen=True)
class Spread:
    """Statistics of some numbers; `std` is of the sample (n - 1), 0 for a single one."""

    mean: float
    std: float
    least: float
    most: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(statistics.mean(values), std, min(values), max(values), len(values))


@dataclass(frozen=True)
class Group:
    """One or several runs of the same settings; `label` is the group's name in a report."""

    label: str
    runs: list[Run]

    @property
    def finished(self) -> bool:
        """Whether all of its runs are finished."""
        return all(run.finished for run in self.runs)

    @property
    def language(self) -> bool:
        """Whether all of its runs are of language models, and their perplexities are finite."""
        return all(perplexity(run.final) is not None for run in self.runs)

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs, in order."""
        return [run.experiment["seed"] for run in self.runs]

    def final(self, value: Callable[[Row], float]) -> Spread:
        """Return the spread of a number of the final models."""
        return Spread.of([value(run.final) for run in self.runs])

    def curve(
        self, x: Callable[[Row], float], y: Callable[[Row], float], tests: bool = True
    ) -> list[Point]:
        """Return the mean x and the y of each round that all runs have: evaluated ones, or any.

        With `tests`, the final models come last, so that runs of different lengths meet there.
        """
        found = [
            {row["round"]: row for row in r.rows if tested(row) or not tests} for r in self.runs
        ]
        rounds = sorted(set.intersection(*map(set, found)))
        points = [[rows[number] for rows in found] for number in rounds]
        if not points or (tests and self.finished):
            points.append([run.final for run in self.runs])
        return [
            (statistics.fmean(map(x, rows)), Spread.of([y(row) for row in rows])) for rows in points
        ]


def singles(runs: list[Run]) -> list[Group]:
    """Return a group for every run."""
    return [Group(run.label, [run]) for run in runs]


def grouped(runs: list[Run]) -> list[Group]:
    """Group the runs by their settings, in order; one group each if no two differ by seed."""
    found: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        found.setdefault(_what_runs(run), []).append(run)
    members = list(found.values())
    if not any(len({run.experiment["seed"] for run in group}) > 1 for group in members):
        return singles(runs)
    labels = _labels(members)
    return [Group(label, group) for label, group in zip(labels, members, strict=True)]


def _what_runs(run: Run) -> tuple[tuple[str, str], ...]:
    pairs = [pair for pair in leaves(run.experiment) if pair[0] not in NOT_WHAT_RUNS]
    return *sorted(pairs), *((f"{c.key} from {c.first_round}", repr(c.was)) for c in run.changes)


def _labels(members: list[list[Run]]) -> list[str]:
    """Return the experiments' names if they are distinct, else the folders' without the seed."""
    names = [label_of(group[0].experiment["name"]) for group in members]
    if len(set(names)) == len(names):
        return names
    folders = [[run.folder.resolve().name for run in group] for group in members]
    stems = [{SEED_IN_NAME.sub("", name) for name in group} for group in folders]
    labels = [min(found) if len(found) == 1 else "" for found in stems]
    if "" in labels or len(set(labels)) < len(labels):
        labels = [group[0] for group in folders]
    return list(map(label_of, labels))


def numbers(group: Group, base_bytes: float | None) -> dict[str, Any]:
    """Return the numbers of a run's summary as a Spread each."""
    rows = [summary(run, base_bytes) for run in group.runs]
    # without a number that was not finite in one of the runs
    keys = [key for key in rows[0] if all(_number(row.get(key)) for row in rows)]
    return {key: Spread.of([row[key] for row in rows]) for key in keys}


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def base_bytes(groups: list[Group]) -> float | None:
    """Return the first group's mean upload, for comparison; None if it is the only group."""
    return groups[0].final(uploaded).mean if len(groups) > 1 else None
