"""Import paths, which lead from a setting to the class that implements it.

Sections name classes as text, so that reading an experiment imports neither torch nor an algorithm.
"""

from importlib import import_module
from typing import Any


def resolve(path: str) -> Any:
    """Import and return the object that `package.module:name` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
