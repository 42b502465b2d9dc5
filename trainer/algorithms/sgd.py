"""Stochastic gradient descent on flat vectors, for clients and for the server.

One elementwise rule gives the results of torch.optim.SGD, bit for bit, but without its bookkeeping:
on a small network an optimizer object costs as much as the arithmetic.

    g <- g + wd x;   v <- mu v + g;   g <- g + mu v (Nesterov) or v;   x <- x - eta g
"""

from torch import Tensor

from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.optimizers import SGD as Settings
from trainer.turn import Memory


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


class LocalSGD(LocalOptimizer):
    """SGD at a client; its state is the velocity, if there is momentum."""

    def __init__(self, settings: Settings, decay: Tensor | None = None) -> None:
        super().__init__(settings, decay)
        self.momentum, self.nesterov = settings.momentum, settings.nesterov
        self.linear = not self.momentum
        self.names = ("momentum",) if self.momentum else ()

    def move(self, x: Tensor, g: Tensor, lr: float, state: Memory) -> None:
        descend(
            x,
            g,
            lr,
            velocity=state.get("momentum"),
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )
