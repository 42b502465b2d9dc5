"""State in a file: tensors, numbers and texts, nested in dictionaries and lists.

A safetensors file holds the tensors; the rest is JSON in its header, with a tensor's name where it
belongs. Nothing is ever unpickled.
"""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from trainer.manifest import Damaged

KEY = "state"  # of the JSON in the file's metadata
Tensors = dict[str, Tensor]


def write(path: Path, state: Any) -> None:
    """Write a tree of dictionaries and lists, and have it on the disk when this returns."""
    tensors: Tensors = {}
    text = json.dumps(_without_tensors(state, tensors))
    write_tensors(path, tensors, {KEY: text})


def read(path: Path, device: torch.device) -> Any:
    """Return what `write` was given, with its tensors on `device` (single numbers on the CPU).

    Raise Damaged if the file is not one that `write` has written.
    """
    try:
        with safe_open(path, "pt") as file:
            text = file.metadata()[KEY]
        return _with_tensors(json.loads(text), read_tensors(path), device)
    except OSError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise Damaged(f"{path.name} is no file of a run's state, or damaged") from None


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a file by name.

    They are in memory, not mapped: the file may go while they are in use, and its room with it.
    """
    return load(path.read_bytes())


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write named tensors, and have them on the disk when this returns; raise OSError if not."""
    own = {name: _own(tensor) for name, tensor in tensors.items()}
    try:
        save_file(own, path, metadata)
    except SafetensorError as error:  # its text is all that it tells of the system's error
        code = re.search(r"(?:code: |os error )(\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text, and have it on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _own(tensor: Tensor) -> Tensor:
    """Return a tensor that shares its memory with no other."""
    tensor = tensor.detach().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _without_tensors(value: Any, tensors: Tensors) -> Any:
    """Return what JSON can hold, and put the tensors where they are found by name."""
    if isinstance(value, Tensor):
        tensors[name := str(len(tensors))] = value
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, since keys may be numbers
        return {"dict": [[key, _without_tensors(held, tensors)] for key, held in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(held, tensors) for held in value]
    assert value is None or isinstance(value, bool | int | float | str), type(value)
    return value


def _with_tensors(value: Any, tensors: Tensors, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_with_tensors(held, tensors, device) for held in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        return tensor.to(device) if tensor.dim() else tensor
    return {key: _with_tensors(held, tensors, device) for key, held in value["dict"]}
