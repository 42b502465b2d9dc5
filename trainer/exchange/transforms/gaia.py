"""Gaia's significance filter (Hsieh et al., NSDI 2017): what hardly moved stays at the client.

Symbols: v = significance, t = round, Value = anchor, Update = anchor - params. A coordinate is sent
once |Update / Value| > v / sqrt(t); until then the client trains on from its own value, so updates
add up there. In the paper a client is a data centre, and every centre applies what others send.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.config.communication import Gaia as Settings
from trainer.exchange.message import CHUNK, Message, Vector
from trainer.exchange.transforms.transform import Context, Transform, adding_up, decayed
from trainer.turn import Memory, Turn


class Gaia(Transform):
    """Keeps, for each client, a residual (P,): its displacement from the agreed model.

    Where a client sends nothing it counts as zero in the mean.
    """

    keeps = True
    accounts = True
    thins = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def entering(self, turn: Turn, memory: Memory) -> None:
        """Train on from the client's own value, so that the next update contains the residual."""
        for residual in memory.values():
            turn.params.sub_(residual)

    def outgoing(
        self, message: Message, vectors: tuple[Vector, ...], memory: Memory, context: Context
    ) -> None:
        threshold = decayed(self.settings.significance, self.settings.decay_rounds, context.number)
        for name in adding_up(vectors):
            update = message.vectors[name]
            memory.setdefault(name, torch.empty_like(update)).copy_(update)
            for values, anchor in zip(
                update.split(CHUNK), context.anchor.split(CHUNK), strict=True
            ):
                # not `>`: if training diverged, NaN has to show and not to hide in the residual
                values.masked_fill_(values.abs() <= anchor.abs() * threshold, 0)

    def delivered(
        self, vectors: tuple[Vector, ...], sent: Mapping[str, Tensor], memory: Memory
    ) -> None:
        for name in adding_up(vectors):
            memory[name].sub_(sent[name])

    def displacement(self, memory: Memory) -> Tensor | None:
        return next(iter(memory.values()), None)

    @property
    def displaces(self) -> bool:
        return self.settings.significance > 0  # at 0 everything that moves is sent
