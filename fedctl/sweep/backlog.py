"""What is left to do of a sweep: for each run whether to start, resume or skip it.

A run is recognised by the digest of its settings, whatever its name. Nothing is changed here,
except that `plan` clears a failed start.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedctl.arguments import refuse_no_folder
from fedctl.errors import UserError
from fedctl.local import preflight
from fedctl.local.preflight import Plan
from fedctl.report import runs
from fedctl.report.summary import leaves
from fedctl.sweep.variants import Variant
from trainer import lock
from trainer.config import documents
from trainer.config.errors import ConfigError
from trainer.config.load import validate
from trainer.config.schema import Experiment

State = Literal["new", "finished", "interrupted", "failed"]
TO_DO: dict[State, str] = {
    "new": "start",
    "finished": "skip, finished",
    "interrupted": "resume",
    "failed": "start again",
}


@dataclass(frozen=True)
class Item:
    """A run of the sweep, its folder, and the folder's state."""

    variant: Variant
    folder: Path
    state: State


def items(variants: Sequence[Variant], folder: Path) -> list[Item]:
    """Return the sweep's runs with their state in `folder`; raise if it holds something else."""
    refuse_no_folder(folder)
    held = _held(folder)
    places = {digest: path for path, (digest, _) in reversed(held.items())}
    found = []
    for variant in variants:
        place = folder / variant.name
        if held.get(place, ("", None))[0] != variant.digest:
            place = places.get(variant.digest, place)
        _belongs(place, variant, held)
        found.append(Item(variant, place, _state(place)))
    return found


def rounds_done(item: Item) -> int:
    """Return the rounds that need not be repeated."""
    return runs.checkpoint_round(item.folder) if item.state == "interrupted" else 0


def plan(item: Item) -> Plan:
    """Return how to run it; clear what a failed start left in its folder."""
    if item.state == "interrupted":
        return preflight.resumed(item.folder)
    if item.state == "failed":
        shutil.rmtree(item.folder)
    return Plan(item.variant.experiment, item.folder)


def _held(folder: Path) -> dict[Path, tuple[str, Experiment | None]]:
    """Return the runs in this folder with their digests, empty for those that cannot be read."""
    found: dict[Path, tuple[str, Experiment | None]] = {}
    for path in sorted(folder.glob(f"*/{runs.EXPERIMENT}")):
        try:
            experiment = validate(documents.read(path))
            found[path.parent] = experiment.digest(), experiment
        except (AttributeError, ConfigError):
            found[path.parent] = "", None
    return found


def _belongs(
    place: Path, variant: Variant, held: dict[Path, tuple[str, Experiment | None]]
) -> None:
    """Raise unless the folder is this run's, or free."""
    remedy = "name another --out, or move it away"
    if place not in held:
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise UserError(f"{place}: exists and is not a run; {remedy}")
        return
    digest, experiment = held[place]
    if experiment is None:
        raise UserError(f"{place / runs.EXPERIMENT}: is not an experiment of this fedctl; {remedy}")
    if digest != variant.digest:
        raise UserError(
            f"{place}: holds another run ({_difference(experiment, variant.experiment)}); {remedy}"
        )
    if holder := lock.holder(place):
        raise UserError(f"{place}: is still running ({holder}); wait for it")


def _difference(there: Experiment, wanted: Experiment) -> str:
    old, new = (dict(leaves(e.model_dump(mode="json"))) for e in (there, wanted))
    key = next(key for key in {**new, **old} if old.get(key) != new.get(key))
    return f"its {key} is {old.get(key, 'not set')}, not {new.get(key, 'unset')}"


def _state(folder: Path) -> State:
    if not (folder / runs.EXPERIMENT).exists():
        return "new"
    if runs.finished(folder):
        return "finished"
    return "interrupted" if runs.checkpoint_round(folder) else "failed"
