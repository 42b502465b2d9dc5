"""Owns FedAvg (McMahan et al., AISTATS 2017) and FedAvgM, its server momentum (Hsu et al. 2019).

Symbols: n_k / n = weight, eta_s = server_lr, mu_s = server_momentum, Delta = mean of x - y_k:
v <- mu_s v + Delta;  x <- x - eta_s v   (torch.optim.SGD's semantics, Nesterov likewise).
"""

from collections.abc import Mapping

from torch import Tensor

from trainer.algorithms.base import Round
from trainer.algorithms.server import ServerSGD
from trainer.config.learning import SGD, Server


class FedAvg(ServerSGD):
    """The server steps along the mean update."""

    def __init__(self, settings: Server, optimizer: SGD, anchor: Tensor) -> None:
        super().__init__(
            settings.weighting,
            anchor,
            lr=settings.server_lr,
            momentum=settings.server_momentum,
            nesterov=settings.server_nesterov,
        )

    def apply(self, round: Round, mean: Mapping[str, Tensor]) -> None:
        self.move(mean["delta"])
