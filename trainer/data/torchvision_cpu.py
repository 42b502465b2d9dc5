"""Owns the import of torchvision, with the cure for a CPU-only torch.

The only module that imports torchvision; who needs it calls `torchvision()`.
"""

import importlib
from types import ModuleType

import torch

# Operators that torchvision describes to torch while it is imported, and whose C++ definition its
# wheel lacks beside a CPU-only torch (the library is linked against CUDA's).
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_definitions: list[torch.library.Library] = []  # a definition lives only as long as its Library


def torchvision() -> ModuleType:
    """torchvision, imported; data sets and transforms work, its own C++ operators may not."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        # Tried first, cured second: where the operators exist, defining them again would fail.
        curable = torch.version.cuda is None and "operator torchvision::nms" in str(error)
        if _definitions or not curable:
            raise
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        fragment.define(operator + _SCHEMA)
    _definitions.append(fragment)
    return importlib.import_module("torchvision")
