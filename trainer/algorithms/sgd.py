"""Stochastic gradient descent on flat vectors, for clients and for the server.

One elementwise rule gives the results of torch.optim.SGD, bit for bit, but without its bookkeeping:
on a small network an optimizer object costs as much as the arithmetic. Symbols, as torch names its
state: b = momentum_buffer (P,), 0 at first.

    g <- g + wd x;   b <- mu b + g;   g <- g + mu b (Nesterov) or b;   x <- x - eta g
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
    momentum_buffer: Tensor | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """Take one step of x (P,) along -g (P,); g may be overwritten, momentum_buffer (P,) is."""
    if weight_decay:
        g = g.add_(x, alpha=weight_decay)
    if momentum_buffer is not None:
        momentum_buffer.mul_(momentum).add_(g)
        g = g.add_(momentum_buffer, alpha=momentum) if nesterov else momentum_buffer
    x.add_(g, alpha=-lr)


class LocalSGD(LocalOptimizer):
    """SGD at a client; its state is the momentum buffer, if there is momentum."""

    def __init__(self, settings: Settings, decay: Tensor | None = None) -> None:
        super().__init__(settings, decay)
        self.momentum, self.nesterov = settings.momentum, settings.nesterov
        self.linear = not self.momentum
        self.names = ("momentum_buffer",) if self.momentum else ()

    def move(self, x: Tensor, g: Tensor, lr: float, state: Memory) -> None:
        descend(
            x,
            g,
            lr,
            momentum_buffer=state.get("momentum_buffer"),
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )
