"""Whose run a folder holds, and whether that run has finished: asked by pods that always resume."""

import json
from pathlib import Path

from trainer.config import documents
from trainer.config.errors import ConfigError
from trainer.config.load import validate
from trainer.config.schema import Experiment
from trainer.engine import distributed
from trainer.engine.mirror import Mirror
from trainer.manifest import EXPERIMENT, METRICS
from trainer.metrics.catalog import Row


def adopt(mirror: Mirror, experiment: Experiment) -> Row | None:
    """Make it this experiment's run folder; return the last row if the run in it has finished.

    Under --resume=auto the folder outlives the process, and nobody checks it before the start. So
    an experiment file records which run it belongs to, like the one that fedctl writes locally.
    """
    out = mirror.out
    mine = out / EXPERIMENT
    if not mine.exists():
        if distributed.world().rank == 0:
            mirror.own(experiment.canonical())
        return None
    try:
        owner = validate(documents.read(mine))
    except (ConfigError, AttributeError):
        raise ConfigError(
            "--resume=auto", f"{mine} cannot be read; use another folder for this run"
        ) from None
    if changed := owner.differences(experiment):
        key, (there, here) = next(iter(changed.items()))
        raise ConfigError(
            "--resume=auto",
            f"{mirror} belongs to another experiment: {key} is {there} there, and {here} here; use "
            "another folder for this run",
        )
    if not mirror.has_model():
        return None
    last = _last_row(out / METRICS)
    # Each row has the rounds that were planned, so only the final model's says that they are over.
    if last is None or not last.final or (last.rounds_planned or 0) < experiment.rounds:
        return None
    return last


def _last_row(metrics: Path) -> Row | None:
    """Return the last row; None if there is none that is whole, and the run has to resume."""
    try:
        return Row.of(json.loads(metrics.read_text().splitlines()[-1]))
    except (FileNotFoundError, ValueError, IndexError, TypeError, AttributeError, RecursionError):
        return None
