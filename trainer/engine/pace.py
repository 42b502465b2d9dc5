"""What coding messages costs the ranks in seconds, beside the seconds that its fewer bytes save.

Both are measured from the start of this process, and told once, at the end of the run: only where
coding costs more than it can save, and so much that it matters.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trainer.engine.ledger import FLOAT32
from trainer.exchange.group import Group
from trainer.exchange.reductions.reduction import Handle

LEAST_SECONDS = 1.0  # by which coding must cost more than it saves, to be told
LEAST_SHARE = 0.05  # of the time of training, likewise


@dataclass
class Pace:
    """Seconds and bytes of a rank's exchanges.

    coding: seconds in which it coded messages, decoded and added them; waiting: seconds until their
    bytes had arrived; sent: bytes that it sent for them; plain: bytes that it would have sent, had
    a ring added up the same values in fp32.
    """

    coding: float = 0.0
    waiting: float = 0.0
    sent: int = 0
    plain: int = 0

    @contextmanager
    def code(self) -> Iterator[None]:
        """Count the time of the `with` block as coding."""
        start = time.perf_counter()
        yield
        self.coding += time.perf_counter() - start

    @contextmanager
    def sending(self, group: Group) -> Iterator[None]:
        """Count what the rank sends in the `with` block."""
        before = sum(group.books.wire.values())
        yield
        self.sent += sum(group.books.wire.values()) - before

    def exchanged(self, handle: Handle, values: int, ranks: int) -> None:
        """Count an exchange that is over: of so many values, among so many ranks."""
        self.coding += handle.working
        self.waiting += handle.waiting
        self.plain += 2 * (ranks - 1) * FLOAT32 * values // ranks

    def told(self, world: Group, codec: str, training: float) -> str:
        """Return a line about the codec if coding cost time; every rank calls it.

        training: seconds of the run so far, without evaluation. What a rank waits for includes the
        ranks that are late, so the link is as fast as for the rank that waited least, or faster;
        and what is saved on it takes as long as is said, or less.
        """
        size, lanes = world.size, [0.0] * (4 * world.size)
        lanes[world.rank :: size] = [self.coding, self.waiting, self.sent, self.plain]
        told = world.sum_numbers(lanes, "control")
        ranks = [
            Pace(coding, waiting, round(sent), round(plain))
            for coding, waiting, sent, plain in (told[rank::size] for rank in range(size))
        ]
        return verdict(ranks, codec, training)


def verdict(ranks: list[Pace], codec: str, training: float) -> str:
    """Return what a person should know; nothing if coding saved time, or hardly cost any."""
    coding, sent, plain = (
        min(getattr(rank, what) for rank in ranks) for what in ("coding", "sent", "plain")
    )
    if not sent:  # no round was played
        return ""
    seconds = min(rank.waiting / rank.sent for rank in ranks)  # for a byte
    saved = (plain - sent) * seconds
    if coding - saved < max(LEAST_SECONDS, LEAST_SHARE * training):
        return ""
    cost = f"codec.name={codec}: each rank spent {coding:.1f} s on coding messages"
    if plain <= sent:
        return (
            f"{cost}, and sent no fewer bytes than a sum in fp32 would have, {sent / 1e6:.1f} MB, "
            "since each of its clients' messages travels by itself; between these ranks "
            "codec.name=fp32 is faster"
        )
    return (
        f"{cost}, and the {(plain - sent) / 1e6:.1f} MB by which it sent less than in fp32 take "
        f"{saved:.1f} s at most on this link ({8e-6 / seconds:.0f} Mbit/s or more); here "
        "codec.name=fp32 is faster"
    )
