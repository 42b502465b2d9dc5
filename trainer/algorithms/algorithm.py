"""The algorithm interface: four hooks with FedAvg's defaults, and one for state that clients keep.

An algorithm never sees a collective, a mask or a codec: it names the vectors that leave a client
and defines the effect of their means. Every vector is as long as the model, so one mask fits all.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from trainer.algorithms.optimizer import LocalOptimizer
from trainer.exchange.message import Vector
from trainer.turn import Memory, Server, Turn


class Weighted(Protocol):
    """What all algorithms' settings have."""

    @property
    def weighting(self) -> Literal["samples", "uniform"]:
        """A client's weight in the mean: its number of samples, or 1."""


class Algorithm:
    """Base of all algorithms; the defaults are FedAvg. Symbols: x = anchor, y_i = params."""

    vectors: ClassVar[tuple[Vector, ...]] = (Vector("delta"),)  # the vectors of `update`
    keeps: bool = False  # it has memory of each client
    listens: ClassVar[bool] = False  # it needs to know what the others received (`delivered`)
    whole: ClassVar[bool] = False  # `apply` needs the whole model at once, and not part by part
    # before training: nothing, each client's full gradient at x, or also their mean (exchanged)
    needs: Literal["nothing", "gradient", "mean gradient"] = "nothing"
    gradient_samples: int | None = None  # cap on the samples in a full gradient

    def __init__(self, settings: Weighted, optimizer: LocalOptimizer) -> None:
        self.uniform, self.optimizer = settings.weighting == "uniform", optimizer
        self.keeps = self.keeps or optimizer.keeps

    def server_state(self, anchor: Tensor) -> Memory:
        """Create the server's state besides x: vectors (P,), and single numbers."""
        return {}

    def weight(self, samples: int) -> float:
        """A client's weight in the mean, before normalisation."""
        return 1.0 if self.uniform else float(samples)

    def begin(self, turn: Turn) -> None:
        """Prepare local training; `params` hold the agreed model."""
        self.optimizer.begin(turn)

    def step(self, turn: Turn) -> None:
        """Take one local step, along the latest gradient."""
        self.optimizer.step(turn)

    def update(self, turn: Turn) -> dict[str, Tensor]:
        """Return the client's offer, x - y_i, as new tensors; no kept state may change here."""
        return {"delta": torch.sub(turn.server.anchor, turn.params)}

    def delivered(self, memory: Memory, sent: Mapping[str, Tensor]) -> None:
        """Update `memory` from `sent`, the part of the offer that the others received, (P,) each.

        Called only if the algorithm listens.
        """

    def apply(self, server: Server, mean: Mapping[str, Tensor]) -> None:
        """Apply the means to the agreed model, alike on every rank: x <- x - mean(x - y_i).

        It must act on each coordinate separately, since it is called for one part of the model
        after another, unless `whole`. Means may be overwritten.
        """
        server.anchor.sub_(mean["delta"])
