"""Stochastic gradient descent on flat vectors, for clients and for the server.

Learning rates are decided in trainer/engine/plan.py. One elementwise rule gives the results of
torch.optim.SGD, bit for bit, but without its bookkeeping: on a small network an optimizer object
costs as much as the arithmetic.

    g <- g + wd x;   v <- mu v + g;   g <- g + mu v (Nesterov) or v;   x <- x - eta g
"""

import torch
from torch import Tensor

from trainer.config.learning import SGD as Settings
from trainer.turn import Memory, Turn


def descend(
    x: Tensor,
    g: Tensor,
    lr: float,
    *,
    velocity: Tensor | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """Take one step of x (P,) along -g (P,); g may be overwritten; velocity (P,): v, 0 at first."""
    if weight_decay:
        g = g.add_(x, alpha=weight_decay)
    if velocity is not None:
        velocity.mul_(momentum).add_(g)
        g = g.add_(velocity, alpha=momentum) if nesterov else velocity
    x.add_(g, alpha=-lr)


def clip(g: Tensor, most: float, turn: Turn | None = None) -> None:
    """Scale g (P,) down to an L2 norm of at most `most`, over all stages of the model."""
    norm = torch.linalg.vector_norm(g)
    if turn is not None:  # the squares of the stages' norms add up
        norm = turn.total(norm.square().view(1)).sqrt()
    g.mul_((most / (norm + 1e-6)).clamp(max=1.0))


class LocalSGD:
    """The clients' optimizer: clipping, weight decay, momentum.

    The velocity of momentum starts at zero in each round, or the client keeps it (`state: keep`).
    decay: (P,) weight decay by coordinate, if it is not the same everywhere.
    """

    def __init__(self, settings: Settings, decay: Tensor | None = None) -> None:
        self.settings, self.decay = settings, decay
        self.weight_decay = settings.weight_decay if decay is None else 0.0
        self.keeps = settings.state == "keep" and settings.momentum > 0

    def begin(self, turn: Turn) -> None:
        """Prepare the first step of a turn."""
        if self.settings.momentum and not self.keeps:
            turn.work["momentum"] = torch.zeros_like(turn.params)

    def step(self, turn: Turn) -> None:
        """Take one step of the client's parameters along its latest gradient."""
        settings = self.settings
        if settings.clip_norm is not None:
            clip(turn.grads, settings.clip_norm, turn)
        if self.decay is not None:
            turn.grads.addcmul_(turn.params, self.decay)
        velocity = self._velocity(turn)
        descend(
            turn.params,
            turn.grads,
            turn.lr,
            velocity=velocity,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=self.weight_decay,
        )

    def _velocity(self, turn: Turn) -> Tensor | None:
        if not self.settings.momentum:
            return None
        place: Memory = turn.memory if self.keeps else turn.work
        if "momentum" not in place:
            place["momentum"] = torch.zeros_like(turn.params)
        return place["momentum"]
