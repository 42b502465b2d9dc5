"""The clients' optimizers: what all of them do around one step on flat vectors.

Learning rates are decided in trainer/engine/plan.py.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from trainer.config.optimizers import Local
from trainer.turn import Memory, Turn


class LocalOptimizer:
    """Base of the clients' optimizers: clipping, weight decay, and where the state is.

    The state starts anew in each round, or the client keeps it (`state: keep`); FedSGD has one at
    the server. decay: (P,) weight decay by coordinate, if it is not the same everywhere.
    """

    names: tuple[str, ...] = ()  # of the tensors of its state
    decoupled: ClassVar[bool] = False  # weight decay acts on the parameters, not the gradient
    # K steps move by the sum of eta g, g clipped and with L2 decay if there are any, so that
    # (y_0 - y) / (K eta) is their mean; momentum would count a gradient up to 1 / (1 - mu) times
    linear: bool = False

    def __init__(self, settings: Local, decay: Tensor | None = None) -> None:
        self.settings, self.decay = settings, decay
        self.weight_decay = settings.weight_decay if decay is None else 0.0

    @property
    def keeps(self) -> bool:
        """Whether a client keeps the state between rounds."""
        return self.settings.state == "keep" and bool(self.names)

    def state(self, x: Tensor) -> Memory:
        """Create the state for a model x (P,): vectors as long as it, and single numbers."""
        return {name: torch.zeros_like(x) for name in self.names}

    def begin(self, turn: Turn) -> None:
        """Prepare the first step of a turn."""
        held = self._held(turn)
        if any(name not in held for name in self.names):
            held.update(self.state(turn.params))
        for name in self.names:  # single numbers come from a file on the CPU
            held[name] = held[name].to(turn.params.device)

    def step(self, turn: Turn) -> None:
        """Take one step of the client's parameters along its latest gradient."""
        self.descend(turn.params, turn.grads, turn.lr, self._held(turn), turn.total)

    def descend(
        self,
        x: Tensor,
        g: Tensor,
        lr: float,
        state: Memory,
        total: Callable[[Tensor], Tensor] | None,
    ) -> None:
        """Take one step of x (P,) along -g (P,); g may be overwritten.

        state: as `state` created it; total: the sum over a pipeline's stages, None: no other.
        """
        if self.settings.clip_norm is not None:
            clip(g, self.settings.clip_norm, total)
        if self.decay is not None and self.decoupled:
            x.addcmul_(x, self.decay, value=-lr)
        elif self.decay is not None:
            g.addcmul_(x, self.decay)
        self.move(x, g, lr, state)

    def move(self, x: Tensor, g: Tensor, lr: float, state: Memory) -> None:
        """Take the step itself, with `weight_decay`; g has been clipped, and may be overwritten."""
        raise NotImplementedError

    def _held(self, turn: Turn) -> Memory:
        return turn.memory if self.keeps else turn.work


def clip(g: Tensor, most: float, total: Callable[[Tensor], Tensor] | None = None) -> None:
    """Scale g (P,) down to an L2 norm of at most `most`, over all stages of the model (`total`)."""
    norm = torch.linalg.vector_norm(g)
    if total is not None:  # the squares of the stages' norms add up
        norm = total(norm.square().view(1)).sqrt()
    g.mul_((most / (norm + 1e-6)).clamp(max=1.0))
