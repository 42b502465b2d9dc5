"""The interface of a policy: which coordinates are exchanged this round; by default all of them.

A policy never sees a collective: clients return ballots, and the engine passes it the outcome. Its
hooks are of two kinds. At each client: `entering`, `stepped`, `leaving`. On every rank alike, and
from agreed values only, so that masks are the same everywhere: `select`, `applied`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainer.config.communication import Full
from trainer.exchange.masks import indices
from trainer.exchange.message import Places
from trainer.exchange.rows import Rows
from trainer.layout import Layout
from trainer.turn import Memory, Server, Turn


class Policy:
    """Full synchronisation, and base of all policies. P is the length of the flat model."""

    keeps: bool = False  # it has memory of each client
    excludes: ClassVar[bool] = False  # it leaves parts of vectors out
    pauses: ClassVar[bool] = False  # the server's vectors stand still where nothing travels
    watches: ClassVar[bool] = False  # `applied` uses the change of the agreed model
    lanes: ClassVar[bool] = True  # ballots travel in narrow lanes; False: as int32
    overlap = 0  # local steps of the next round that its exchange may take
    labelled = 0  # coordinates that it calls frozen, exchanged or not
    rows: Rows | None = None  # that it leaves out as wholes; None: single coordinates

    def __init__(
        self,
        settings: Full,
        size: int,
        device: torch.device,
        seed: int = 0,
        layout: Layout | None = None,
    ) -> None:
        """Start with nothing frozen; `seed`: the run's, for draws that all ranks make alike.

        layout: of the vector, None: it is one tensor.
        """
        self.size = size

    def arrange(self, layout: Layout, whole: Layout) -> None:
        """Learn which tensors are where: in this rank's vector, and in the whole model's."""

    # ------------------------------------------------------------------ at each client

    def entering(self, turn: Turn, memory: Memory) -> None:
        """Restore what a client kept; it starts from `turn.params`, the agreed model."""

    def stepped(self, turn: Turn) -> None:
        """React to one local step, which has just been taken."""

    def leaving(self, turn: Turn, memory: Memory) -> Tensor | None:
        """Keep what stays at the client after local training, and return its ballot.

        What stays is on frozen coordinates, which are not sent, so it need not wait for the
        exchange. The ballot is (items,) bool, or None if the policy does not vote.
        """
        return None

    # ------------------------------------------------------------------ on every rank alike

    @property
    def items(self) -> int:
        """Return how many items a ballot is on: what is frozen, coordinates or rows."""
        return self.labelled

    @property
    def voting(self) -> bool:
        """Whether a vote decides in this round what travels in it."""
        return False

    @property
    def polling(self) -> bool:
        """Whether votes travel with the values of this round, and decide what travels later."""
        return False

    def quorum(self, voters: int) -> int:
        """Return how many of the round's clients must vote for a coordinate to thaw it."""
        return 1

    def ballot_bytes(self) -> int:
        """Return the bytes that one client's ballot costs to upload."""
        return 0

    def select(self, decided: Tensor | None) -> Places:
        """Return the places to exchange; decided: (items,) bool, the outcome of a vote."""
        return Places(self.size, self.live(), self.size - self.labelled)

    def decided(self, outcome: Tensor) -> None:
        """Take the outcome of a poll of this round, (items,) bool, before `applied`."""

    def departed(self, number: int) -> None:
        """Learn that the exchange of a round has begun, with what `select` returned."""

    def mix(self, own: Tensor, anchor: Tensor, places: Places) -> None:
        """Change a client's own model (P,) where an exchange has arrived late, at these places."""

    def applied(self, change: Tensor, server: Server, places: Places) -> None:
        """Judge coordinates again: the model moved by -change (P,), which may be overwritten."""

    def live(self) -> Tensor | None:
        """Return the coordinates (bool, P) not frozen as the round begins; None: all of them."""
        return None

    def displacement(self, anchor: Tensor, memory: Memory) -> Tensor | None:
        """Return anchor - local (P,) of a client that drifted from the agreed model, or None."""
        return None

    def drifted(self) -> Tensor | None:
        """Return the coordinates (bool, P) on which clients may differ now; None: nowhere."""
        return None

    def decisive(self) -> Sequence[Tensor] | None:
        """Return what decides the next round's places, which ranks compare; None: nothing does."""
        return None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: tensors and numbers."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""


class FreezingPolicy(Policy):
    """Base of the policies that exclude frozen coordinates."""

    excludes = True
    watches = True

    def freeze(self, frozen: Tensor) -> None:
        """Exclude these coordinates (bool, P) from now on."""
        self.frozen = frozen
        self.index = indices(frozen)  # (F,), for each client or step far faster than a mask
        self.labelled = len(self.index)
        self.units = self.index if self.rows is None else indices(self.rows.first(frozen))

    @property
    def items(self) -> int:
        return len(self.units)

    def live(self) -> Tensor | None:
        return ~self.frozen if self.labelled else None

    def decisive(self) -> Sequence[Tensor]:
        return [self.frozen]
