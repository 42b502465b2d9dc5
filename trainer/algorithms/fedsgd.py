"""Owns FedSGD by gradients, which is large-batch SGD over the sampled clients.

Symbols: G_i = mean gradient of client i over the batches of its local steps, all at x = anchor;
x <- SGD(x, sum_i w_i G_i) with the optimizer's lr, momentum and weight decay. With one pass over
the data this is McMahan's FedSGD; by weights it is FedAvg with one full-batch step, and equal.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.algorithms.base import Algorithm, Memory, Round
from trainer.config.learning import SGD
from trainer.config.learning import FedSGD as Settings


class FedSGD(Algorithm):
    """Clients only accumulate; the one step of a round is the server's."""

    vectors = ("grad",)

    def __init__(self, settings: Settings, optimizer: SGD, anchor: Tensor) -> None:
        self.uniform = settings.weighting == "uniform"
        self.clip_norm = optimizer.clip_norm
        self.sum = torch.zeros_like(anchor)  # sum over batches of samples x gradient
        self.samples = 0
        self.anchor = torch.nn.Parameter(anchor)  # the same memory
        self.server = torch.optim.SGD(
            [self.anchor],
            lr=optimizer.lr,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
        )

    def weight(self, samples: int) -> float:
        return 1.0 if self.uniform else float(samples)

    def begin(self, round: Round) -> None:
        self.sum.zero_()
        self.samples = 0

    def step(self, round: Round) -> None:
        self.sum.add_(round.grads, alpha=round.batch)
        self.samples += round.batch

    def update(self, round: Round) -> Mapping[str, Tensor]:
        return {"grad": self.sum.div_(max(1, self.samples))}

    def apply(self, round: Round, mean: Mapping[str, Tensor]) -> None:
        self.anchor.grad = mean["grad"]
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([self.anchor], self.clip_norm)
        self.server.step()
        self.anchor.grad = None

    def state(self) -> Memory:
        return {"server": self.server.state_dict()}

    def load(self, state: Memory) -> None:
        self.server.load_state_dict(state["server"])
