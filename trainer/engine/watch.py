"""Watch over a round: which client's numbers, or which part of the agreed state, are not finite.

What is watched is read once on the device, where nothing waits for it; the results are looked up
once a round. What follows from them is decided in divergence.py.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.turn import Server

GRADIENT, LOSS, UPDATE, KEPT = range(4)  # what of a client is watched
AGREED = -1  # in the place of a client: a vector of the agreed state


@dataclass
class Watch:
    """The extremes of all that this rank has handled in the round.

    A vector is finite if its smallest and its largest value are, as both are NaN if any value is.
    That is one pass that allocates nothing; isfinite().all() allocates a mask and goes over it too.

    client: the first one of this rank of which something was not finite, and what, as of the last
    `close`; agreed: whether the agreed state was.
    """

    client: tuple[int, int] | None = None
    agreed: bool = True
    looks: list[tuple[int, int]] = field(default_factory=list)  # client (or AGREED), and what
    extremes: list[Tensor] = field(default_factory=list)  # of each look: two, () each
    before: Tensor | None = None  # the sum of training losses as the round began

    @property
    def finite(self) -> bool:
        """Whether all that this rank saw in the last round was finite."""
        return self.agreed and self.client is None

    def begin(self, losses: Tensor) -> None:
        """Begin a round; `losses`: the sum of training losses so far."""
        self.looks.clear()
        self.extremes.clear()
        self.before = losses.clone()

    def look(self, client: int, what: int, vectors: Iterable[Tensor]) -> None:
        """Look at vectors of a client, in the order in which they came to be."""
        for vector in vectors:
            # single numbers are counters of a part, and may be on another device
            if vector.is_floating_point() and vector.dim() and len(vector):
                self._add(client, what, *vector.aminmax())

    def loss(self, client: int, losses: Tensor) -> None:
        """Look at the sum of training losses after a client's turn."""
        copy = losses.clone()
        self._add(client, LOSS, copy, copy)

    def close(self, server: Server) -> None:
        """Look at the agreed state as well, and find out what was not finite."""
        self.look(AGREED, 0, (server.anchor, server.buffers, *server.state.values()))
        assert self.before is not None
        extremes = torch.stack([self.before, *self.extremes]).tolist()
        finite = [math.isfinite(value) for value in extremes]
        wrong = [
            look
            for look, least, most in zip(self.looks, finite[1::2], finite[2::2], strict=True)
            # a sum that was not finite before the round shows nothing of its clients
            if not (least and most) and (finite[0] or look[1] != LOSS)
        ]
        self.agreed = not any(client == AGREED for client, _ in wrong)
        of_clients = [look for look in wrong if look[0] != AGREED]
        self.client = min(of_clients, key=order, default=None)
        self.extremes.clear()

    def _add(self, client: int, what: int, least: Tensor, most: Tensor) -> None:
        self.looks.append((client, what))
        self.extremes += (least, most)


def order(look: tuple[int, int]) -> tuple[bool, int]:
    """Sort by client; but a full gradient, whose mean all clients get, comes before their turns."""
    client, what = look
    return what != GRADIENT, client


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a value that is not finite; None: there is none."""
    for name, tensor in tensors.items():
        watched = tensor.is_floating_point() and tensor.numel()
        if watched and not bool(torch.stack(tensor.aminmax()).isfinite().all()):
            return name
    return None
