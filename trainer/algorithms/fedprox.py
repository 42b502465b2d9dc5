"""FedProx (Li et al., MLSys 2020): a proximal term (mu / 2) ||y - x||^2 in each client's loss.

It limits how far a client moves from the agreed model in its local steps. The server is FedAvg's.
"""

from trainer.algorithms.fedavg import FedAvg
from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.learning import FedProx as Settings
from trainer.turn import Turn


class FedProx(FedAvg):
    """FedProx. Symbols: mu = prox, x = anchor, y = params."""

    def __init__(self, settings: Settings, optimizer: LocalOptimizer) -> None:
        super().__init__(settings, optimizer)
        self.prox = settings.prox

    def step(self, turn: Turn) -> None:
        # the gradient of the proximal term is mu (y - x)
        turn.grads.add_(turn.params, alpha=self.prox).sub_(turn.server.anchor, alpha=self.prox)
        super().step(turn)
