"""Bytes of one rank, counted where they are made and where they are handed over."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.metrics.catalog import TRAFFIC


def none() -> dict[str, int]:
    """No bytes of any kind."""
    return dict.fromkeys(TRAFFIC, 0)


@dataclass
class Books:
    """Counts of this rank since the start of the run, bytes by kind of traffic.

    payload: what this rank's clients upload, added to where a message is coded (or, by a reduction
    that adds up clients first, where a message is added); wire: what leaves this rank, added to
    where tensors are handed to torch.distributed. formed: messages that were coded one by one, so
    that their bytes existed.
    """

    payload: dict[str, int] = field(default_factory=none)
    wire: dict[str, int] = field(default_factory=none)
    formed: int = 0

    def upload(self, kinds: Mapping[str, int]) -> None:
        """A client's message, or a part of it: bytes by kind."""
        for kind, count in kinds.items():
            self.payload[kind] += count

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return asdict(self)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; in place, since the group counts into it."""
        self.payload.update(state["payload"])
        self.wire.update(state["wire"])
        self.formed = state["formed"]
