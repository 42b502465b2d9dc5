"""FedAvg (McMahan et al., AISTATS 2017), FedAvgM (Hsu et al. 2019), FedOpt (Reddi et al. 2021).

Only the server's step is here, and its optimizers are in server.py; the clients' steps are their
optimizer's. Symbols: n_k / n = weight, Delta = sum over clients of n_k / n (x - y_k).

Delta takes the place of a gradient at x. With SGD, a step size of 1 and no momentum the new x is
the weighted mean of the y_k, because the weights sum to 1: that is FedAvg as published.
"""

from collections.abc import Mapping

from torch import Tensor

from trainer.algorithms.algorithm import Algorithm
from trainer.algorithms.optimizer import LocalOptimizer
from trainer.algorithms.server import ServerOptimizer
from trainer.config.learning import Server as Settings
from trainer.config.parts import resolve
from trainer.turn import Memory, Server


class FedAvg(Algorithm):
    """FedAvg, whose server steps along the mean update."""

    def __init__(self, settings: Settings, optimizer: LocalOptimizer) -> None:
        super().__init__(settings, optimizer)
        chosen = settings.server
        self.server_optimizer: ServerOptimizer = resolve(chosen.implementation)(chosen)

    def server_state(self, anchor: Tensor) -> Memory:
        return self.server_optimizer.state(anchor)

    def apply(self, server: Server, mean: Mapping[str, Tensor]) -> None:
        self.server_optimizer.step(server.anchor, mean["delta"], server.state)
