"""Presets and sweeps that are bundled with fedctl, with their descriptions.

Builds no experiment; what a sweep file may contain is in sweep/file.py.
"""

import json
import textwrap
from pathlib import Path

PRESETS = Path(__file__).parent / "presets"
SWEEPS = Path(__file__).parent / "sweeps"


def presets() -> list[str]:
    """Return the names of all presets, in alphabetical order."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def sweeps() -> list[str]:
    """Return the names of all bundled sweeps, in alphabetical order."""
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def _descriptions(folder: Path) -> dict[str, str]:
    from trainer.config import documents

    trees = {path.stem: documents.read(path) for path in folder.glob("*.yaml")}
    return {name: " ".join(str(trees[name]["description"]).split()) for name in sorted(trees)}


def as_text(width: int = 100) -> str:
    """List the presets, then the sweeps, each with its description in lines of this width."""
    alone, several = _descriptions(PRESETS), _descriptions(SWEEPS)
    indent = 2 + max(map(len, [*alone, *several]))
    return "\n".join(
        [
            *_lines(alone, indent, width),
            "",
            "sweeps, for fedctl sweep:",
            *_lines(several, indent, width),
        ]
    )


def _lines(found: dict[str, str], indent: int, width: int) -> list[str]:
    return [
        textwrap.fill(
            text,
            max(width, indent + 20),
            initial_indent=f"{name:<{indent}}",
            subsequent_indent=" " * indent,
        )
        for name, text in found.items()
    ]


def as_json() -> str:
    """Return the same as a JSON list of objects."""
    entries = [
        {"name": name, "kind": kind, "description": text}
        for kind, folder in (("preset", PRESETS), ("sweep", SWEEPS))
        for name, text in _descriptions(folder).items()
    ]
    return json.dumps(entries, indent=2)
