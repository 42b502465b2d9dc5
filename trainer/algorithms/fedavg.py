"""FedAvg (McMahan et al., AISTATS 2017), and FedAvgM with server momentum (Hsu et al. 2019).

Only the server's step is here; the clients' is in sgd.py. Symbols: n_k / n = weight, eta_s =
server_lr, mu_s = server_momentum, Delta = sum over clients of n_k / n (x - y_k):

    v <- mu_s v + Delta;   x <- x - eta_s v    (semantics of torch.optim.SGD, also for Nesterov)

Delta takes the place of a gradient at x. With eta_s = 1 and mu_s = 0 the new x is the weighted mean
of the y_k, because the weights sum to 1: that is FedAvg as published.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.algorithms.algorithm import Algorithm
from trainer.algorithms.sgd import LocalSGD, descend
from trainer.config.learning import Server as Settings
from trainer.turn import Memory, Server


class FedAvg(Algorithm):
    """FedAvg, whose server steps along the mean update."""

    def __init__(self, settings: Settings, optimizer: LocalSGD) -> None:
        super().__init__(settings, optimizer)
        self.settings = settings

    def server_state(self, anchor: Tensor) -> Memory:
        return {"velocity": torch.zeros_like(anchor)} if self.settings.server_momentum else {}

    def apply(self, server: Server, mean: Mapping[str, Tensor]) -> None:
        descend(
            server.anchor,
            mean["delta"],
            self.settings.server_lr,
            velocity=server.state.get("velocity"),
            momentum=self.settings.server_momentum,
            nesterov=self.settings.server_nesterov,
        )
