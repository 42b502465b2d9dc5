"""Bytes of one rank, counted where they are created and where they are sent.

They are added up over the ranks in trainer/engine/ledger.py.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.metrics.catalog import SOME, TRAFFIC


def none() -> dict[str, int]:
    """Return zero bytes of each kind of traffic that every run has."""
    return dict.fromkeys([kind for kind in TRAFFIC if kind not in SOME], 0)


@dataclass
class Books:
    """Counts of this rank since the start of the run, bytes by kind of traffic.

    payload: the uploads of this rank's clients, counted where a message is coded (or where it is
    added, if a reduction adds up clients first); wire: the bytes that leave this rank, counted
    where tensors are passed to torch.distributed. formed: messages that were coded one by one, so
    that their bytes existed.
    """

    payload: dict[str, int] = field(default_factory=none)
    wire: dict[str, int] = field(default_factory=none)
    formed: int = 0

    def upload(self, kinds: Mapping[str, int]) -> None:
        """Count a client's message, or a part of it: bytes by kind."""
        for kind, count in kinds.items():
            self.payload[kind] += count

    def counts(self) -> dict[tuple[str, str], int]:
        """Return every count, by book and kind of traffic."""
        books = {"payload": self.payload, "wire": self.wire, "messages": {"formed": self.formed}}
        return {(book, kind): n for book, own in books.items() for kind, n in own.items()}

    def take(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Replace some counts, named as `counts` does."""
        for (book, kind), count in counts.items():
            if book == "messages":
                self.formed = count
            else:
                (self.payload if book == "payload" else self.wire)[kind] = count

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return asdict(self)

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`, in place, since the group counts into this object."""
        self.payload.update(state["payload"])
        self.wire.update(state["wire"])
        self.formed = state["formed"]
