"""The server's optimizers, which step along the clients' mean update in place of a gradient.

FedOpt (Reddi et al., "Adaptive Federated Optimization", ICLR 2021) is any of them at the server;
DiLoCo (Douillard et al. 2023) is SGD with Nesterov momentum there, and AdamW at the clients. The
adaptive ones are the paper's Algorithm 2. Symbols: x = anchor, eta = lr, Delta = sum over clients
of w_i (x - y_i), which is the paper's -Delta_t; m = exp_avg (as torch names it), v = second_moment,
(P,) each:

    m <- beta1 m + (1 - beta1) Delta                                   m = 0 at first
    v <- v + Delta^2                                       (Adagrad)   v = tau^2 at first
    v <- v - (1 - beta2) Delta^2 sign(v - Delta^2)         (Yogi)
    v <- beta2 v + (1 - beta2) Delta^2                     (Adam)
    x <- x - eta m / (sqrt(v) + tau)

The paper wants v >= tau^2 at first and takes beta1 = 0 for Adagrad; ours has equality, and these
defaults. torch.optim.Adam starts v at 0 instead, and divides m and v by 1 - beta^t, so that its
first steps are of full size; with t large the two agree. torch.optim.Adagrad is ours if beta1 = 0,
its eps is tau, and its initial_accumulator_value tau^2. torch has no Yogi.

A place that does not travel has Delta = 0: its m and v take that step, as SGD's momentum buffer
does, so that an old direction fades, and the round puts its anchor back. Under sync.name=streaming
they are put back too, since there every place travels each F-th round. If nobody sends, no step is
taken at all.
"""

import torch
from torch import Tensor

from trainer.algorithms.sgd import descend
from trainer.config import optimizers as settings
from trainer.turn import Memory


class ServerOptimizer:
    """Base of the server's optimizers. They act on each coordinate separately."""

    def state(self, x: Tensor) -> Memory:
        """Create the state for a model x: vectors (P,)."""
        raise NotImplementedError

    def step(self, x: Tensor, delta: Tensor, state: Memory) -> None:
        """Move x (P,) along -delta (P,), which may be overwritten."""
        raise NotImplementedError


class ServerSGD(ServerOptimizer):
    """SGD with the semantics of torch.optim.SGD."""

    def __init__(self, chosen: settings.ServerSGD) -> None:
        self.settings = chosen

    def state(self, x: Tensor) -> Memory:
        return {"momentum_buffer": torch.zeros_like(x)} if self.settings.momentum else {}

    def step(self, x: Tensor, delta: Tensor, state: Memory) -> None:
        descend(
            x,
            delta,
            self.settings.lr,
            momentum_buffer=state.get("momentum_buffer"),
            momentum=self.settings.momentum,
            nesterov=self.settings.nesterov,
        )


class Adaptive(ServerOptimizer):
    """Algorithm 2; what becomes of v is each subclass's."""

    def __init__(self, chosen: settings.Adaptive) -> None:
        self.lr, self.beta1, self.tau = chosen.lr, chosen.beta1, chosen.tau

    def state(self, x: Tensor) -> Memory:
        moments = {"second_moment": torch.full_like(x, self.tau**2)}
        return moments | ({"exp_avg": torch.zeros_like(x)} if self.beta1 else {})

    def step(self, x: Tensor, delta: Tensor, state: Memory) -> None:
        direction, v = delta, state["second_moment"]
        if self.beta1:
            direction = state["exp_avg"].mul_(self.beta1).add_(delta, alpha=1 - self.beta1)
        self.accumulate(v, delta)
        x.addcdiv_(direction, v.sqrt().add_(self.tau), value=-self.lr)

    def accumulate(self, v: Tensor, delta: Tensor) -> None:
        """Add a new update (P,) to the squared ones, v (P,)."""
        raise NotImplementedError


class ServerAdam(Adaptive):
    """v is the mean of squared updates."""

    def __init__(self, chosen: settings.ServerAdam) -> None:
        super().__init__(chosen)
        self.beta2 = chosen.beta2

    def accumulate(self, v: Tensor, delta: Tensor) -> None:
        v.mul_(self.beta2).addcmul_(delta, delta, value=1 - self.beta2)


class ServerYogi(Adaptive):
    """v goes up or down towards the new square by a share of that square, not of the distance."""

    def __init__(self, chosen: settings.ServerYogi) -> None:
        super().__init__(chosen)
        self.beta2 = chosen.beta2

    def accumulate(self, v: Tensor, delta: Tensor) -> None:
        square = delta.square()
        v.addcmul_(torch.sub(v, square).sign_(), square, value=self.beta2 - 1)


class ServerAdagrad(Adaptive):
    """v is the sum of squared updates."""

    def accumulate(self, v: Tensor, delta: Tensor) -> None:
        v.addcmul_(delta, delta)
