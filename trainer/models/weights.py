"""Loading of model.weights: reading a file of weights, and copying them into a network.

Saving a model is the business of trainer/engine/loop.py. Layer 1.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer.config.errors import ConfigError
from trainer.config.paths import expanded

KEY = "model.weights"
SAFETENSORS = ".safetensors"
NESTED = ("state_dict", "model")  # keys under which training scripts keep weights in checkpoints
WRAPPED = "module."  # the prefix that DataParallel adds to each name


Tensors = dict[str, Tensor]


def read(path: str | Path) -> Tensors:
    """Read the tensors of a file by name: a .safetensors, or a state dict saved by torch.save.

    The state dict may be in a checkpoint, under "state_dict" or "model"; DataParallel's prefix is
    removed. No code in the file is run.
    """
    path = expanded(KEY, str(path))
    if not path.is_file():
        raise ConfigError(KEY, f"{path} is not a file; give the path of saved weights")
    try:
        if path.suffix == SAFETENSORS:
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # which exception a damaged file raises depends on the damage
        raise ConfigError(
            KEY,
            f"{path} is damaged, or holds more than tensors; save the weights with "
            "torch.save(model.state_dict(), path) or as .safetensors",
        ) from error
    return _state_dict(found, path)


def load(model: nn.Module, path: str | Path) -> None:
    """Copy the file's weights and buffers into `model`; every tensor must match exactly one.

    Tensors are matched by name if the names are the model's. Published files, such as Local SGD's,
    have the names of other code; their tensors are taken in order, each to the next place of the
    same kind (the last part of the name: weight, bias, running_mean ...) and the same shape. This
    is a weaker condition than one order over all tensors: Local SGD's blocks with group norm list
    both norms before the second convolution. A .safetensors is matched by name only, because that
    format sorts its tensors.
    """
    found, own = read(path), model.state_dict()
    places = {n: n for n, t in own.items() if n in found and found[n].shape == t.shape}
    if found.keys() != own.keys() and Path(path).suffix != SAFETENSORS:
        places = max(places, _places_in_order(found, own), key=len)
    if not len(own) == len(places) == len(found):
        raise ConfigError(
            KEY,
            f"{path} does not fit the model: {_mismatch(found, own, places)}; choose model.name, "
            "model.norm and data as in the run that saved it",
        )
    model.load_state_dict(
        {name: _usable(found[place], own[name], place, path) for name, place in places.items()}
    )


def _state_dict(found: Any, path: Path) -> Tensors:
    """Return the tensors by name from the content of a file."""
    for key in NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    named = found if isinstance(found, dict) else {}
    tensors = {n: t for n, t in named.items() if isinstance(n, str) and isinstance(t, Tensor)}
    if not tensors or len(tensors) < len(named):
        raise ConfigError(
            KEY,
            f"{path} is not a state dict, which holds names with their tensors and nothing else; "
            "save it with torch.save(model.state_dict(), path)",
        )
    _refuse_strange(tensors, path)
    if all(name.startswith(WRAPPED) for name in tensors):
        return {name.removeprefix(WRAPPED): tensor for name, tensor in tensors.items()}
    return tensors


def _refuse_strange(tensors: Tensors, path: Path) -> None:
    """Raise for a tensor that is no plain array of numbers: PyTorch would fail on it, or guess."""
    for name, tensor in tensors.items():
        kinds = {
            "has no values (device meta)": tensor.is_meta,
            "is quantised": tensor.is_quantized,
            "is complex": tensor.is_complex(),
            f"is {str(tensor.layout).removeprefix('torch.')}": tensor.layout != torch.strided,
            "is nested": tensor.is_nested,
        }
        if problem := next((text for text, true in kinds.items() if true), None):
            raise ConfigError(
                KEY, f"{path}: {name} {problem}; save dense floating-point tensors, on a CPU"
            )


def _usable(tensor: Tensor, own: Tensor, name: str, path: str | Path) -> Tensor:
    """Return a tensor in the model's own type; raise if that loses what it is."""
    if own.is_floating_point() != tensor.is_floating_point():
        kinds = [str(t.dtype).removeprefix("torch.") for t in (tensor, own)]
        raise ConfigError(
            KEY, f"{path}: {name} is {kinds[0]}, but the model's is {kinds[1]}; convert it"
        )
    cast = tensor.to(own.dtype)
    if cast.is_floating_point() and not cast.isfinite().all():
        raise ConfigError(
            KEY,
            f"{path}: {name} has values that are not finite in {str(own.dtype).split('.')[1]}; "
            "take weights from before the training diverged",
        )
    return cast


def _places_in_order(found: Tensors, own: Tensors) -> dict[str, str]:
    """Map each name of the model to the name in the file of the next tensor that fits it."""
    waiting: dict[Any, list[str]] = defaultdict(list)
    for name, tensor in reversed(found.items()):
        waiting[_kind(name), tensor.shape].append(name)
    return {
        name: waiting[_kind(name), tensor.shape].pop()
        for name, tensor in own.items()
        if waiting[_kind(name), tensor.shape]
    }


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _mismatch(found: Tensors, own: Tensors, places: dict[str, str]) -> str:
    """Describe the first tensor without a match, and how many there are."""
    if lacking := [name for name in own if name not in places]:
        name = lacking[0]
        first = f"it has no {name} ({_shape(own[name])})"
        if name in found and found[name].shape != own[name].shape:
            first = f"{name} is {_shape(found[name])} in it, {_shape(own[name])} in the model"
        return f"{first}, the first of {len(lacking)} that differ among {len(own)} tensors"
    used = {*places.values()}
    surplus = [name for name in found if name not in used]
    name = surplus[0]
    return f"the model has no {name} ({_shape(found[name])}), the first of {len(surplus)} too many"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
