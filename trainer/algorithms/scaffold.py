"""SCAFFOLD (Karimireddy et al., ICML 2020), with fresh controls or the paper's kept ones.

How offers are masked, coded or weighted is not known here. Symbols: c_i = memory["control"], c =
server.state["control"], eta = mean_lr, K = steps, S = the clients of a round. Every local gradient
is corrected (the paper's algorithm 1):

    y <- y - eta (g_i(y) - c_i + c)

c_i estimates client i's gradient and c the mean gradient, so -c_i + c replaces the client's own
direction by the common one, and clients with different data do not drift apart. Clients send x - y
and c_i - c_i+; x steps along the mean of the first, and c moves by 1/N of each of the second:

    c <- c + |S| / N  mean over S of (c_i+ - c_i)
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.algorithms.fedavg import FedAvg
from trainer.algorithms.optimizer import LocalOptimizer
from trainer.config.learning import Scaffold
from trainer.exchange.message import Vector
from trainer.turn import Memory, Server, Turn


class FreshScaffold(FedAvg):
    """SCAFFOLD with this round's full gradients at x as controls; nothing is kept."""

    needs = "mean gradient"

    def __init__(self, settings: Scaffold, optimizer: LocalOptimizer) -> None:
        super().__init__(settings, optimizer)
        self.gradient_samples = settings.gradient_samples

    def begin(self, turn: Turn) -> None:
        super().begin(turn)
        assert turn.gradient is not None and turn.mean_gradient is not None
        turn.work["correction"] = torch.sub(turn.mean_gradient, turn.gradient)  # c - c_i

    def step(self, turn: Turn) -> None:
        turn.grads.add_(turn.work["correction"])
        super().step(turn)


class KeptScaffold(FedAvg):
    """SCAFFOLD as published: each client keeps c_i, all ranks keep c; both start at 0.

    So round 1 is FedAvg. option-1: c_i+ is the client's full gradient at x; option-2: c_i+ =
    c_i - c + (y_0 - y) / (K eta), with y_0 = x unless the client trains on from values of its own
    (gwpf, streaming, gaia). Since y_0 - y = eta sum (g_i - c_i + c) over K steps of plain SGD, that
    is the mean of the local gradients, which costs no extra pass over the data. Adam's steps are in
    no proportion to gradients, and with momentum y_0 - y is so many times their sum that controls
    grow without end; with either their mean is taken as they come: c_i+ = (1/K) sum g_i.

    The law: c is the mean of c_i over all N clients, whichever clients take part, with whatever
    weights, and whatever is left out on the way. It holds because c_i changes by the part of the
    client's change that the others received, and c by 1/N of the sum of these parts. The missing
    part is contained in the client's next change, which is a difference to c_i; a residual, as in
    error feedback, would count it twice.
    """

    vectors = (Vector("delta"), Vector("control", leftover="again", over="everyone"))
    keeps = True
    listens = True

    def __init__(self, settings: Scaffold, optimizer: LocalOptimizer) -> None:
        super().__init__(settings, optimizer)
        self.full = settings.controls == "option-1"
        self.measures = not self.full and not optimizer.linear  # takes the mean as they come
        self.needs = "gradient" if self.full else "nothing"
        self.gradient_samples = settings.gradient_samples

    def server_state(self, anchor: Tensor) -> Memory:
        return super().server_state(anchor) | {"control": torch.zeros_like(anchor)}

    def begin(self, turn: Turn) -> None:
        super().begin(turn)
        if self.measures:
            turn.work["sum"] = torch.zeros_like(turn.params)
        elif not self.full:
            # the client starts at x, but for what a policy or a transform let it keep apart
            turn.work["start"] = turn.params.clone()
        correction = turn.server.state["control"].clone()  # c - c_i
        if "control" in turn.memory:
            correction.sub_(turn.memory["control"])
        turn.work["correction"] = correction

    def step(self, turn: Turn) -> None:
        if self.measures:
            turn.work["sum"].add_(turn.grads)
        turn.grads.add_(turn.work["correction"])
        super().step(turn)

    def update(self, turn: Turn) -> dict[str, Tensor]:
        offer = super().update(turn)
        if self.full or self.measures:  # c_i - c_i+, where c_i+ is G_i or the mean gradient
            found = turn.work["sum"].div_(turn.steps) if self.measures else turn.gradient
            assert found is not None
            change = turn.memory.get("control", torch.zeros_like(turn.params)) - found
        else:  # c_i - c_i+ = c - (y_0 - y) / (K eta), the mean of this turn's gradients
            scale = -1 / (turn.steps * turn.mean_lr)
            moved = turn.work["start"].sub_(turn.params)
            change = torch.add(turn.server.state["control"], moved, alpha=scale)
        return offer | {"control": change}

    def delivered(self, memory: Memory, sent: Mapping[str, Tensor]) -> None:
        change = sent["control"]
        if "control" in memory:
            memory["control"].sub_(change)
        else:
            memory["control"] = change.neg()

    def apply(self, server: Server, mean: Mapping[str, Tensor]) -> None:
        super().apply(server, mean)
        server.state["control"].sub_(mean["control"])


def scaffold(settings: Scaffold, optimizer: LocalOptimizer) -> FedAvg:
    """Create the variant that the setting `controls` selects."""
    kind = FreshScaffold if settings.controls == "fresh" else KeptScaffold
    return kind(settings, optimizer)
