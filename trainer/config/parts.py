"""Import paths: the way from a setting to the class that carries it out."""

from importlib import import_module
from typing import Any


def resolve(path: str) -> Any:
    """The object that `package.module:name` names; imported only now."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
