"""FedSGD by gradients, which is large-batch training over the sampled clients.

Clients take no local steps. Symbols: G_i = mean gradient of client i over the batches of its local
steps, all at x = anchor, w_i = weight; x <- OPT(x, sum_i w_i G_i), where OPT is one step of the
setting `optimizer`, taken by the server: SGD, Adam or AdamW, with its learning rate, clipping and
weight decay, and with a state that is the server's. With SGD and one pass over the data this is
McMahan's FedSGD. FedSGD by weights is FedAvg with one full-batch step of SGD: sum_i w_i (x - eta
G_i) = x - eta sum_i w_i G_i, so the two are equal.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.algorithms.algorithm import Algorithm
from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.learning import FedSGD as Settings
from trainer.exchange.message import Vector
from trainer.turn import Memory, Server, Turn


class FedSGD(Algorithm):
    """FedSGD: clients only accumulate gradients; the one step of a round is the server's."""

    # used once: the part of a gradient that is left out is not sent later
    vectors = (Vector("grad", leftover="lost"),)
    whole = True  # for the gradient's norm, and since an optimizer counts its steps

    def __init__(self, settings: Settings, optimizer: LocalOptimizer) -> None:
        super().__init__(settings, optimizer)
        self.keeps = False  # no step of a client, no state to keep

    def server_state(self, anchor: Tensor) -> Memory:
        return self.optimizer.state(anchor)

    def begin(self, turn: Turn) -> None:
        # sums over batches, of samples times mean gradient and of samples, so that smaller batches
        # weigh less and the quotient is the mean over samples
        turn.work["sum"] = torch.zeros_like(turn.params)
        turn.work["samples"] = torch.zeros((), dtype=torch.int64)

    def step(self, turn: Turn) -> None:
        turn.work["sum"].add_(turn.grads, alpha=turn.batch)
        turn.work["samples"] += turn.batch

    def update(self, turn: Turn) -> dict[str, Tensor]:
        return {"grad": turn.work["sum"].div_(max(1, int(turn.work["samples"])))}

    def apply(self, server: Server, mean: Mapping[str, Tensor]) -> None:
        self.optimizer.descend(server.anchor, mean["grad"], server.lr, server.state, server.total)
