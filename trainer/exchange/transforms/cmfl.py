"""CMFL, Communication-Mitigated Federated Learning (Wang, Wang, Li, ICDCS 2019).

Only whether a client sends is decided here, never which coordinates. Symbols: u = a client's
update, u_bar = the last change of the agreed model, v = relevance, t = round, e(u, u_bar) = share
of the coordinates with sgn(u_j) = sgn(u_bar_j). A client with e < v / sqrt(t) uploads nothing and
discards u, and the mean is over the other clients. u_bar replaces the global update of the current
round, which no client knows yet.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import CMFL as Settings
from trainer.exchange.masks import chunks
from trainer.exchange.message import Message, Vector
from trainer.exchange.transforms.transform import Context, Transform, decayed
from trainer.turn import Memory


class CMFL(Transform):
    """The decision of each client whether its update follows the trend of the model.

    It saves uploads to a server (payload), but nothing in a ring, which moves zeros as well. If the
    model has not moved, there is no trend to compare with, so all clients upload: in round 1, and
    after a round in which none did. Otherwise one such round would lead to more of them.
    """

    silences = True
    watches = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.direction: Tensor | None = None  # sgn(u_bar), int8 (P,)

    def outgoing(
        self, message: Message, vectors: tuple[Vector, ...], memory: Memory, context: Context
    ) -> None:
        if self.direction is None:
            return
        update = message.vectors[vectors[0].name]
        counts = torch.tensor([0, len(update)], device=update.device)  # that agree, and all
        for part in chunks(len(update), update.device):
            counts[0] += (update[part].sign() == self.direction[part]).count_nonzero()
        agree, size = context.total(counts).tolist()
        threshold = decayed(self.settings.relevance, self.settings.decay_rounds, context.number)
        message.silent = agree < threshold * size

    def applied(self, change: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        direction = change.sign().to(torch.int8)
        moved = total(direction.count_nonzero().view(1))  # of the whole model, not of a stage
        self.direction = direction if bool(moved) else None

    def state(self) -> dict[str, Any]:
        return {"direction": self.direction}

    def load(self, state: Mapping[str, Any]) -> None:
        self.direction = state["direction"]
