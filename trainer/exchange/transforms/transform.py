"""The interface of a transform: what a client does to its message before it is coded.

A chain of them works in order on what leaves a client (`outgoing`), and in reverse once it is known
what the others got of it (`delivered`). Only then may a client's memory change for good.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from trainer.exchange.message import Message, Places, Vector
from trainer.turn import Memory, Turn


@dataclass(frozen=True)
class Context:
    """What a transform may know of the round.

    anchor: the agreed model (P,); places: what travels; total: the sum of a value over the stages
    of a pipeline, since a message is one client's on one stage.
    """

    number: int
    anchor: Tensor
    places: Places
    total: Callable[[Tensor], Tensor]


class Transform:
    """Leaves messages as they are, and the base of the others. The attributes say what fits it."""

    keeps: ClassVar[bool] = False  # does it have memory of each client?
    accounts: ClassVar[bool] = False  # does it keep what was not sent, to send it later?
    silences: ClassVar[bool] = False  # may a client send nothing at all?
    thins: ClassVar[bool] = False  # are most values zero afterwards?
    watches: ClassVar[bool] = False  # does it want to see how the agreed model moved?

    def entering(self, turn: Turn, memory: Memory) -> None:
        """A client's local training begins, from the agreed model in `turn.params`."""

    def outgoing(
        self, message: Message, vectors: tuple[Vector, ...], memory: Memory, context: Context
    ) -> None:
        """Change the message's vectors: replace them, or work in place.

        They are zero where the round's mask is off, and must stay so.
        """

    def delivered(
        self, vectors: tuple[Vector, ...], sent: Mapping[str, Tensor], memory: Memory
    ) -> None:
        """The others got `sent` of the message: (P,) each, zero if the client was silent."""

    def displacement(self, memory: Memory) -> Tensor | None:
        """anchor - local (P,) of a client that trains on from its own values, or None."""
        return None

    @property
    def displaces(self) -> bool:
        """Do clients train on from their own values?"""
        return False

    def applied(self, change: Tensor) -> None:
        """The agreed model moved by -change (P,); alike on every rank."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of what all ranks agree on."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


def decayed(start: float, decay_rounds: float, round_number: int) -> float:
    """start / sqrt(1 + (t - 1) / decay_rounds) in round t, from 1."""
    return float(start / (1 + (round_number - 1) / decay_rounds) ** 0.5)


def adding_up(vectors: tuple[Vector, ...]) -> list[str]:
    """Names of the vectors of which what is not sent is to be added to the next one."""
    return [vector.name for vector in vectors if vector.adds_up]
