"""A small text for tests of language models, and the experiment that learns from it."""

import random
from pathlib import Path
from typing import Any

NOUNS = ("cat", "dog", "bird", "fish", "tree", "stone")
VERBS = ("sees", "hears", "follows", "likes")


def prose(sentences: int = 300, seed: int = 0) -> str:
    """Sentences of few words, the same for the same seed."""
    draws = random.Random(seed)
    lines = [
        f"the {draws.choice(NOUNS)} {draws.choice(VERBS)} the {draws.choice(NOUNS)} ."
        for _ in range(sentences)
    ]
    return "\n".join(lines) + "\n"


def folder(path: Path, documents: int = 12) -> Path:
    """Documents of unequal lengths."""
    path.mkdir(exist_ok=True)
    for number in range(documents):
        (path / f"{number:02}.txt").write_text(prose(20 + 5 * number, number))
    return path


def tree(path: Path, **more: Any) -> dict[str, Any]:
    """An experiment on this text, with sections of `more` merged into its own."""
    base: dict[str, Any] = {
        "seed": 7,
        "rounds": 4,
        "clients": 4,
        "data": {"name": "text", "path": str(path), "context": 6},
        "model": {"name": "transformer-tiny"},
        "optimizer": {"lr": 0.5},
        "schedule": {"batch_size": 4, "phases": [{"steps": 3}]},
        "evaluation": {"batch_size": 50},
    }
    for key, value in more.items():
        merged = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = base[key] | value if merged else value
    return base
