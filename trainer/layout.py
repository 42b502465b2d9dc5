"""The flat vector of all parameters: names, shapes, and places of the tensors in it.

All code that exchanges, freezes or corrects parameters works on such vectors, never on modules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Piece:
    """One parameter's place in the vector."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Number of scalar values."""
        return prod(self.shape)

    @property
    def place(self) -> slice:
        """Slice of the parameter in the flat vector."""
        return slice(self.start, self.start + self.size)


class Layout:
    """Named tensors one after another in a vector of P values, in the order given."""

    def __init__(self, shapes: Iterable[tuple[str, Iterable[int]]]) -> None:
        pieces: list[Piece] = []
        start = 0
        for name, shape in shapes:
            pieces.append(Piece(name, tuple(shape), start))
            start += pieces[-1].size
        self.pieces, self.size = tuple(pieces), start

    def views(self, vector: Tensor) -> Mapping[str, Tensor]:
        """Return each tensor by name, (..., *shape), as a view of `vector` (..., P)."""
        rows = vector.shape[:-1]
        return {p.name: vector[..., p.place].view((*rows, *p.shape)) for p in self.pieces}


class Flat:
    """A model whose tensors are views of three vectors.

    params, grads: (P,) in the order of `model.named_parameters()`, float32, or float64 if the model
    is; buffers: (B,) in the order of `model.named_buffers()`, the running means and variances of
    BatchNorm. Integer buffers, such as BatchNorm's batch counter, stay in the module and are never
    exchanged.
    """

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters())
        kinds = {p.dtype for _, p in named}
        assert kinds in ({torch.float32}, {torch.float64}), f"parameters of one type, not {kinds}"
        device = named[0][1].device
        self.model = model
        self.layout = Layout((name, p.shape) for name, p in named)
        self.params = _joined((p for _, p in named), device)
        self.grads = torch.zeros_like(self.params)
        values, gradients = self.layout.views(self.params), self.layout.views(self.grads)
        for name, parameter in named:
            parameter.data = values[name]
            # autograd adds in place to a gradient that already exists
            parameter.grad = gradients[name]
        floats = [(n, b) for n, b in model.named_buffers() if b.is_floating_point()]
        self.buffers = _joined((b for _, b in floats), device)
        places = Layout((name, b.shape) for name, b in floats).views(self.buffers)
        for name, buffer in floats:
            buffer.data = places[name]

    @property
    def counters(self) -> list[Tensor]:
        """The integer buffers, which stay in the module."""
        return [b for b in self.model.buffers() if not b.is_floating_point()]


def _joined(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    return torch.cat([torch.empty(0, device=device), *(t.detach().reshape(-1) for t in tensors)])
