"""What was changed as a run resumed: changes.jsonl in its folder, which the trainer writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.manifest import CHANGES


@dataclass(frozen=True)
class Change:
    """One setting, or the samples (key: data), which is another from this round on."""

    first_round: int
    key: str
    was: Any
    now: Any


def read(folder: Path, rounds: int) -> tuple[Change, ...]:
    """Return the changes of a run that has these rounds; a damaged line costs itself only."""
    try:
        lines = (folder / CHANGES).read_bytes().split(b"\n")
    except OSError:
        return ()
    found = (change for line in lines for change in _changes(line))
    return tuple(change for change in found if change.first_round <= rounds)


def _changes(line: bytes) -> list[Change]:
    try:
        values = json.loads(line)
        first = int(values["after_round"]) + 1
        return [Change(first, key, was, now) for key, (was, now) in values["changed"].items()]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
