"""Checkpoints as fedctl sees them in a run folder: no more than it reads."""

import json
from pathlib import Path

from trainer import manifest
from trainer.manifest import Manifest


def write_checkpoint(run: Path, number: int) -> None:
    """A checkpoint after this round."""
    folder = manifest.folder_of(run / manifest.FOLDER, number)
    folder.mkdir(parents=True, exist_ok=True)
    path = run / manifest.EXPERIMENT
    experiment = json.loads(path.read_text()) if path.exists() else {}
    content = Manifest(number, 1, experiment, "", None, {}, {})
    (folder / manifest.NAME).write_text(content.text())
