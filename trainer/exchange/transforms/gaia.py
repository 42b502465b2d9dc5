"""Gaia's significance filter (Hsieh et al., NSDI 2017): small changes stay at the client.

Which coordinates a client sends depends on that client alone, so there is no agreed mask. Symbols:
v = significance, t = round, Value = anchor, Update = anchor - params. A coordinate is sent once
|Update / Value| > v / sqrt(t). Until then the client continues from its own value, so its updates
add up there. In the paper a client is a data centre, and every centre applies the updates of the
others.
"""

import torch
from torch import Tensor

from trainer.config.communication import Gaia as Settings
from trainer.exchange.masks import chunks
from trainer.exchange.message import Message, Vector
from trainer.exchange.transforms.transform import Context, Continuing, adding_up, decayed
from trainer.turn import Memory


class Gaia(Continuing):
    """A residual (P,) for each client: its displacement from the agreed model.

    A coordinate that a client does not send counts as zero in the mean.
    """

    thins = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def outgoing(
        self, message: Message, vectors: tuple[Vector, ...], memory: Memory, context: Context
    ) -> None:
        threshold = decayed(self.settings.significance, self.settings.decay_rounds, context.number)
        for name in adding_up(vectors):
            update = message.vectors[name]
            memory.setdefault(name, torch.empty_like(update)).copy_(update)
            for part in chunks(len(update), update.device):
                values, anchor = update[part], context.anchor[part]
                # |Update| <= |Value| v is the condition above without a division by zero. It tests
                # for what to drop, so that NaN of a diverged run is sent and not kept unnoticed.
                values.masked_fill_(values.abs() <= anchor.abs() * threshold, 0)

    def displacement(self, memory: Memory) -> Tensor | None:
        return next(iter(memory.values()), None)

    @property
    def displaces(self) -> bool:
        return self.settings.significance > 0  # at 0 every change is sent
