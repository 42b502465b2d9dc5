"""The algorithm interface: four hooks with FedAvg's defaults, and one for what clients keep.

An algorithm never sees a collective, a mask or a codec: it names the vectors that leave a client
and says what their means do. Every vector is as long as the model, so one mask fits all.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from trainer.algorithms.sgd import LocalSGD
from trainer.exchange.message import Vector
from trainer.turn import Memory, Server, Turn


class Weighted(Protocol):
    """What all algorithms' settings have."""

    @property
    def weighting(self) -> Literal["samples", "uniform"]:
        """A client's weight in the mean: its number of samples, or 1."""


class Algorithm:
    """FedAvg's client: every default is what FedAvg does. Symbols: x = anchor, y_i = params."""

    vectors: ClassVar[tuple[Vector, ...]] = (Vector("delta"),)  # what `update` returns
    keeps: bool = False  # does it have memory of each client?
    listens: ClassVar[bool] = False  # does it want to know what the others got (`delivered`)?
    # Does it need each client's full gradient at x, or also its mean (exchanged) before training?
    needs: Literal["nothing", "gradient", "mean gradient"] = "nothing"
    gradient_samples: int | None = None  # at most so many samples in a full gradient

    def __init__(self, settings: Weighted, optimizer: LocalSGD) -> None:
        self.uniform, self.optimizer = settings.weighting == "uniform", optimizer
        self.keeps = self.keeps or optimizer.keeps

    def server_state(self, anchor: Tensor) -> Memory:
        """What the server keeps besides x: (P,) each, zero at first."""
        return {}

    def weight(self, samples: int) -> float:
        """A client's weight in the mean, before normalisation."""
        return 1.0 if self.uniform else float(samples)

    def begin(self, turn: Turn) -> None:
        """Before local training; `params` hold the agreed model."""
        self.optimizer.begin(turn)

    def step(self, turn: Turn) -> None:
        """What one local gradient does: y <- y - eta g."""
        self.optimizer.step(turn)

    def update(self, turn: Turn) -> dict[str, Tensor]:
        """What the client offers: x - y_i. New tensors; nothing that is kept may change here."""
        return {"delta": torch.sub(turn.server.anchor, turn.params)}

    def delivered(self, memory: Memory, sent: Mapping[str, Tensor]) -> None:
        """The others got `sent` of the offer, (P,) each: only now may `memory` change.

        Called only if the algorithm listens.
        """

    def apply(self, server: Server, mean: Mapping[str, Tensor]) -> None:
        """What the means do to the agreed model, alike on every rank: x <- x - mean(x - y_i).

        Place by place, so that it works on any part of the model too; means may be overwritten.
        """
        server.anchor.sub_(mean["delta"])
