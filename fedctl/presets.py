"""Owns the experiments that ship with fedctl: where they lie and what each shows."""

import json
import textwrap
from pathlib import Path

FOLDER = Path(__file__).parent / "presets"


def names() -> list[str]:
    """Every preset's name, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def descriptions() -> dict[str, str]:
    """Each preset's one line on what it shows; read without building the experiments."""
    import yaml

    trees = {name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8")) for name in names()}
    return {name: " ".join(str(tree["description"]).split()) for name, tree in trees.items()}


def as_text() -> str:
    """The presets, each with its line."""
    found = descriptions()
    indent = 2 + max(map(len, found))
    return "\n".join(
        textwrap.fill(text, 100, initial_indent=f"{name:<{indent}}", subsequent_indent=" " * indent)
        for name, text in found.items()
    )


def as_json() -> str:
    """The same as a JSON list of objects."""
    found = descriptions().items()
    return json.dumps([{"name": name, "description": text} for name, text in found], indent=2)
