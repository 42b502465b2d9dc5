"""Checkpoints as fedctl sees them in a run folder: no more than it reads."""

import json
from pathlib import Path


def write_checkpoint(run: Path, number: int) -> None:
    """A checkpoint after this round."""
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints/latest.json").write_text(json.dumps({"round": number}))
