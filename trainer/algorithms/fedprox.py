"""Owns FedProx (Li et al., MLSys 2020): each client's loss grows by (mu / 2) ||y - x||^2."""

from torch import Tensor

from trainer.algorithms.base import Round
from trainer.algorithms.fedavg import FedAvg
from trainer.config.learning import SGD
from trainer.config.learning import FedProx as Settings


class FedProx(FedAvg):
    """Symbols: mu = prox, x = anchor, y = params."""

    def __init__(self, settings: Settings, optimizer: SGD, anchor: Tensor) -> None:
        super().__init__(settings, optimizer, anchor)
        self.prox = settings.prox

    def step(self, round: Round) -> None:
        round.grads.add_(round.params, alpha=self.prox).sub_(round.anchor, alpha=self.prox)
        super().step(round)
