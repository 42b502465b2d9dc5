"""The interface of a transform: what a client does to its message before it is coded.

A transform sees no collective and no code. A chain of them is applied in order to what leaves a
client (`outgoing`), and in reverse when it is known which values the others received
(`delivered`). Only then may a client's memory change for good.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from trainer.exchange.message import Message, Places, Vector
from trainer.turn import Memory, Turn


@dataclass(frozen=True)
class Context:
    """The properties of a round that a transform may use.

    anchor: the agreed model (P,); places: the coordinates that travel; total: the sum of a value
    over the stages of a pipeline, since a message covers one client on one stage.
    """

    number: int
    anchor: Tensor
    places: Places
    total: Callable[[Tensor], Tensor]


class Transform:
    """Base of all transforms, which changes nothing. The attributes declare what it fits."""

    keeps: ClassVar[bool] = False  # it has memory of each client
    accounts: ClassVar[bool] = False  # it keeps what was not sent, to send it later
    silences: ClassVar[bool] = False  # a client may send nothing at all
    thins: ClassVar[bool] = False  # most values are zero afterwards
    watches: ClassVar[bool] = False  # `applied` uses the change of the agreed model

    def entering(self, turn: Turn, memory: Memory) -> None:
        """Prepare a client's local training, which starts from `turn.params`, the agreed model."""

    def outgoing(
        self, message: Message, vectors: tuple[Vector, ...], memory: Memory, context: Context
    ) -> None:
        """Change the message's vectors: replace them, or change them in place.

        They are zero where the round's mask is off, and must stay zero there.
        """

    def delivered(
        self, vectors: tuple[Vector, ...], sent: Mapping[str, Tensor], memory: Memory
    ) -> None:
        """Update `memory` from the received values `sent`: (P,) each, zero if it was silent."""

    def displacement(self, memory: Memory) -> Tensor | None:
        """Return anchor - local (P,) of a client that continues from its own values, or None."""
        return None

    @property
    def displaces(self) -> bool:
        """Whether clients continue from their own values instead of the agreed ones."""
        return False

    def applied(self, change: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Learn that the agreed model moved by -change (P,); called on every rank alike.

        total: the sum of a value over the stages of a pipeline, as in `Context`.
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of the state that all ranks agree on."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""


class Accounting(Transform):
    """A transform that keeps what was not sent: a residual (P,) for each vector that adds up.

    Until it is known what the others received, `outgoing` has put all that the client offers in the
    residual's place. What they received is then taken off.
    """

    keeps = True
    accounts = True

    def delivered(
        self, vectors: tuple[Vector, ...], sent: Mapping[str, Tensor], memory: Memory
    ) -> None:
        for name in adding_up(vectors):
            memory[name].sub_(sent[name])


class Continuing(Accounting):
    """A transform whose clients train on from values of their own: residual = anchor - local.

    So a client's next update, anchor - params, contains its residual by itself.
    """

    def entering(self, turn: Turn, memory: Memory) -> None:
        for residual in memory.values():
            turn.params.sub_(residual)


def decayed(start: float, decay_rounds: float, round_number: int) -> float:
    """Return start / sqrt(1 + (t - 1) / decay_rounds) in round t, from 1.

    decay_rounds = 1 gives the papers' start / sqrt(t); larger values make it fall later.
    """
    return float(start / (1 + (round_number - 1) / decay_rounds) ** 0.5)


def adding_up(vectors: tuple[Vector, ...]) -> list[str]:
    """Names of the vectors of which what is not sent is to be added to the next one."""
    return [vector.name for vector in vectors if vector.adds_up]
