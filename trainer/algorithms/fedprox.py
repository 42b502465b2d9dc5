"""FedProx (Li et al., MLSys 2020): each client's loss grows by (mu / 2) ||y - x||^2."""

from trainer.algorithms.fedavg import FedAvg
from trainer.algorithms.sgd import LocalSGD
from trainer.config.learning import FedProx as Settings
from trainer.turn import Turn


class FedProx(FedAvg):
    """Symbols: mu = prox, x = anchor, y = params."""

    def __init__(self, settings: Settings, optimizer: LocalSGD) -> None:
        super().__init__(settings, optimizer)
        self.prox = settings.prox

    def step(self, turn: Turn) -> None:
        # the gradient of the penalty is mu (y - x)
        turn.grads.add_(turn.params, alpha=self.prox).sub_(turn.server.anchor, alpha=self.prox)
        super().step(turn)
