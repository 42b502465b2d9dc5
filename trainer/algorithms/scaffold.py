"""Owns SCAFFOLD (Karimireddy et al., ICML 2020), with fresh controls or the paper's kept ones.

Symbols: c_i = memory["control"], c = control, eta = round.lr, K = round.steps,
m / N = round.sampled. Every local gradient is corrected: y <- y - eta (g_i(y) - c_i + c). Clients
send x - y and c_i - c_i+; x steps along the mean of the first, c <- c - (m / N) mean(c_i - c_i+).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.algorithms.base import Memory, Round
from trainer.algorithms.fedavg import FedAvg
from trainer.config.learning import SGD, Scaffold


class FreshScaffold(FedAvg):
    """Controls are the whole gradients at x of this round's clients; nothing is kept."""

    needs = "mean gradient"

    def __init__(self, settings: Scaffold, optimizer: SGD, anchor: Tensor) -> None:
        super().__init__(settings, optimizer, anchor)
        self.gradient_samples = settings.gradient_samples
        self.correction = torch.zeros_like(anchor)  # c - c_i of the client that trains now

    def begin(self, round: Round) -> None:
        assert round.gradient is not None and round.mean_gradient is not None
        torch.sub(round.mean_gradient, round.gradient, out=self.correction)

    def step(self, round: Round) -> None:
        round.grads.add_(self.correction)
        super().step(round)


class KeptScaffold(FedAvg):
    """Each client keeps c_i, all ranks keep c; both start at 0, so round 1 is FedAvg.

    option-1: c_i+ is the client's whole gradient at x; option-2: c_i - c + (x - y) / (K eta).
    """

    vectors = ("delta", "control")

    def __init__(self, settings: Scaffold, optimizer: SGD, anchor: Tensor) -> None:
        super().__init__(settings, optimizer, anchor)
        self.whole = settings.controls == "option-1"
        self.needs = "gradient" if self.whole else "nothing"
        self.gradient_samples = settings.gradient_samples
        self.control = torch.zeros_like(anchor)  # c
        self.correction = torch.zeros_like(anchor)  # c - c_i of the client that trains now
        self.change = torch.zeros_like(anchor)  # c_i - c_i+

    def begin(self, round: Round) -> None:
        own = round.memory.get("control")
        self.correction.copy_(self.control)
        if own is not None:
            self.correction.sub_(own)

    def step(self, round: Round) -> None:
        round.grads.add_(self.correction)
        super().step(round)

    def update(self, round: Round) -> Mapping[str, Tensor]:
        delta = super().update(round)["delta"]
        own = round.memory.setdefault("control", torch.zeros_like(self.control))
        if self.whole:
            assert round.gradient is not None
            torch.sub(own, round.gradient, out=self.change)
        else:  # c_i - c_i+ = c - (x - y) / (K eta)
            torch.add(self.control, delta, alpha=-1 / (round.steps * round.lr), out=self.change)
        own.sub_(self.change)
        return {"delta": delta, "control": self.change}

    def apply(self, round: Round, mean: Mapping[str, Tensor]) -> None:
        super().apply(round, mean)
        self.control.sub_(mean["control"], alpha=round.sampled)

    def state(self) -> Memory:
        return super().state() | {"control": self.control}

    def load(self, state: Memory) -> None:
        super().load(state)
        self.control.copy_(state["control"])


def scaffold(settings: Scaffold, optimizer: SGD, anchor: Tensor) -> FedAvg:
    """The class that the setting `controls` asks for."""
    kind = FreshScaffold if settings.controls == "fresh" else KeptScaffold
    return kind(settings, optimizer, anchor)
