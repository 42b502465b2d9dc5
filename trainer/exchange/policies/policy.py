"""The interface of a policy: which coordinates are exchanged this round; by default all of them.

A policy sees a round from two sides. At each client: `entering`, `stepped`, `leaving`. On every
rank alike, and from agreed values only, so that masks are the same everywhere: `select`, `applied`.
It never sees a collective: clients return ballots, and the engine tells it what they decided.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainer.config.communication import Full
from trainer.exchange.message import Places
from trainer.turn import Memory, Server, Turn


class Policy:
    """Full synchronisation, and the base of the others. P is the length of the flat model."""

    keeps: ClassVar[bool] = False  # does it have memory of each client?
    watches: ClassVar[bool] = False  # does it want to see how the agreed model moved?
    lanes: ClassVar[bool] = True  # do ballots travel in narrow lanes, or as int32?
    labelled = 0  # coordinates that it calls frozen, exchanged or not

    def __init__(self, settings: Full, size: int, device: torch.device, seed: int = 0) -> None:
        """`seed`: the run's, for a policy that draws at random, alike on every rank."""
        self.size = size

    # ------------------------------------------------------------------ at each client

    def entering(self, turn: Turn, memory: Memory) -> None:
        """A client starts from the agreed model in `turn.params`: restore what it kept."""

    def stepped(self, turn: Turn) -> None:
        """One local step was taken."""

    def leaving(self, turn: Turn, memory: Memory) -> Tensor | None:
        """Local training is over: keep what stays at the client, and vote.

        What stays is on frozen coordinates, which are not sent, so it need not wait for the
        exchange. Returns the ballot, (labelled,) bool, if the policy votes.
        """
        return None

    # ------------------------------------------------------------------ on every rank alike

    @property
    def voting(self) -> bool:
        """Is there anything to vote on this round?"""
        return False

    def quorum(self, voters: int) -> int:
        """How many of the round's clients decide."""
        return 1

    def ballot_bytes(self) -> int:
        """What one client's ballot costs to upload."""
        return 0

    def select(self, decided: Tensor | None) -> Places:
        """What is exchanged; decided: (labelled,) bool, the vote's outcome, if there was one."""
        return Places(self.size, self.live())

    def applied(self, change: Tensor, server: Server, places: Places) -> None:
        """The agreed model moved by -change (P,), which may be overwritten: judge it anew."""

    def live(self) -> Tensor | None:
        """Coordinates (bool, P) that are not frozen as the round begins; None: all of them."""
        return None

    def displacement(self, anchor: Tensor, memory: Memory) -> Tensor | None:
        """anchor - local (P,) of a client that drifted from the agreed model, or None."""
        return None

    def drifted(self) -> Tensor | None:
        """Coordinates (bool, P) on which clients may differ now; None: they agree everywhere."""
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors and numbers."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


class FreezingPolicy(Policy):
    """What all policies share that leave frozen coordinates out."""

    watches = True

    def freeze(self, frozen: Tensor) -> None:
        """Leave these coordinates (bool, P) out from now on."""
        self.frozen = frozen
        self.index = frozen.nonzero()[:, 0]  # (F,), far faster than a mask at each client or step
        self.labelled = len(self.index)

    def live(self) -> Tensor | None:
        return ~self.frozen if self.labelled else None
