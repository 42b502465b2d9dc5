"""Import of torchvision, with a workaround for a CPU-only torch.

No other module imports torchvision; they call `torchvision()`.
"""

import importlib
from types import ModuleType

import torch

# Operators whose shapes torchvision registers with torch during its import. Their C++ definitions
# are missing with a CPU-only torch, since the wheel's library is linked against CUDA's.
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_definitions: list[torch.library.Library] = []  # a definition lives only as long as its Library


def torchvision() -> ModuleType:
    """Import torchvision; data sets and transforms work, its own C++ operators may not."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        # The plain import comes first, since defining operators that exist would fail.
        curable = torch.version.cuda is None and "operator torchvision::nms" in str(error)
        if _definitions or not curable:
            raise
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        fragment.define(operator + _SCHEMA)
    _definitions.append(fragment)
    return importlib.import_module("torchvision")
