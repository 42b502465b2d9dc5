"""Owns FedAvg (McMahan et al., AISTATS 2017) and FedAvgM, its server momentum (Hsu et al. 2019).

Symbols: n_k / n = weight, eta_s = server_lr, mu_s = server_momentum, Delta = mean of x - y_k:
v <- mu_s v + Delta;  x <- x - eta_s v   (torch.optim.SGD's semantics, Nesterov likewise).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.algorithms.base import Algorithm, Memory, Round
from trainer.config.learning import SGD, Server


class FedAvg(Algorithm):
    """The server's step is an SGD step along the mean update, taken alike on every rank."""

    def __init__(self, settings: Server, optimizer: SGD, anchor: Tensor) -> None:
        self.uniform = settings.weighting == "uniform"
        self.anchor = torch.nn.Parameter(anchor)  # the same memory
        self.server = torch.optim.SGD(
            [self.anchor],
            lr=settings.server_lr,
            momentum=settings.server_momentum,
            nesterov=settings.server_nesterov,
        )

    def weight(self, samples: int) -> float:
        return 1.0 if self.uniform else float(samples)

    def apply(self, round: Round, mean: Mapping[str, Tensor]) -> None:
        self.anchor.grad = mean["delta"]
        self.server.step()
        self.anchor.grad = None

    def state(self) -> Memory:
        return {"server": self.server.state_dict()}

    def load(self, state: Memory) -> None:
        self.server.load_state_dict(state["server"])
