"""Refusal to start with another package `trainer` than the one that is installed with this one.

PYTHONPATH counts before what is installed, and `trainer` is a name that others have had too. It
imports nothing but the standard library, and nothing of the trainer.
"""

import importlib.util
import sys
from pathlib import Path


def refuse() -> None:
    """End the program in one line if another folder hides ours."""
    ours = Path(__file__).resolve().parent.parent / "trainer"
    spec = importlib.util.find_spec("trainer")
    places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    found = next(iter(places), None)
    if found is None or Path(found).resolve() == ours:
        return  # if none is installed, the import says so
    sys.stderr.write(
        f"error: {ascii(str(found))[1:-1]}: a package `trainer` of others hides fedctl's ({ours}); "
        "remove its folder from PYTHONPATH\n"
    )
    raise SystemExit(2)
