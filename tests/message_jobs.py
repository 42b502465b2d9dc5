"""A job for ranks: every message of a run written out as bytes, beside what the books say of it."""

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.jobs import experiment_run
from trainer.engine.evaluate import reconcile
from trainer.engine.outbox import Outbox
from trainer.engine.round import run_round
from trainer.exchange.reductions.all_reduce import Sum
from trainer.exchange.reductions.owners import Shares


class Written:
    """What clients send, as bytes of a file or of a packet: their lengths by kind of traffic."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.messages: list[dict[str, Tensor]] = []  # whose places are not known yet

    def ballot(self, votes: Tensor | None, lanes: bool) -> None:
        if votes is not None:
            written = np.packbits(votes.numpy()) if lanes else votes.numpy().astype(np.int32)
            self.bytes["votes"] += len(written.tobytes())

    def plain(self, exchange: Sum, places: Any) -> None:
        """Messages that a rank would add up: the values that travel, or those that are not zero."""
        dtype = exchange.reduction.dtype
        for vectors in self.messages:
            for vector in exchange.parts:
                values, kind = vectors[vector.name], exchange.terms.kind
                if vector.exact:
                    kind = "buffers"
                elif vector in exchange.union:
                    self.index(values)
                    values = values[values != 0]
                elif places.mask is not None:
                    values = values[places.mask]
                self.bytes[kind] += len(values.to(dtype).numpy().tobytes())
        self.messages = []

    def index(self, values: Tensor) -> None:
        """Which of them are sent: a bit for each, or their numbers, whichever is shorter."""
        sent = (values != 0).numpy()
        listed = np.flatnonzero(sent).astype(np.int32).tobytes()
        self.bytes["votes"] += min(len(listed), len(np.packbits(sent).tobytes()))

    def coded(self, box: list[Tensor], kinds: list[str]) -> None:
        """The parts of one message, the last that were put into the box."""
        for part, kind in zip(box[-len(kinds) :], kinds, strict=True):
            self.bytes[kind] += len(part.numpy().tobytes())


def written(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Bytes of all messages of a run on one rank, by kind, and the payload in its books.

    With several ranks a message comes in a part for each owner. What a client uploads does not
    depend on their number (tests/laws/test_wire_laws.py), so here it is in one.
    """
    rank, notes = experiment_run(tree), Written()
    offer, stay = Outbox.offer, Outbox._stay_silent
    add, finish, encoded = Sum.add, Sum.finish, Shares.add

    def offering(self, message, ballot):
        notes.ballot(ballot, self.parts.policy.lanes)
        offer(self, message, ballot)

    def silent(self, message):
        notes.bytes["control"] += len(bytes(1))
        stay(self, message)

    def adding(self, message):
        notes.messages.append({name: v.clone() for name, v in message.vectors.items()})
        return add(self, message)

    def finishing(self, places, stop, poll=None):
        notes.plain(self, places)
        return finish(self, places, stop, poll)

    def encoding(self, message):
        report = encoded(self, message)
        (box,) = self.boxes  # of the only owner
        notes.coded(box, [segment.kind for segment in self.segments])
        return report

    Outbox.offer, Outbox._stay_silent = offering, silent
    Sum.add, Sum.finish, Shares.add = adding, finishing, encoding
    try:
        for number in range(1, rounds + 1):
            run_round(rank, number)
    finally:
        Outbox.offer, Outbox._stay_silent = offer, stay
        Sum.add, Sum.finish, Shares.add = add, finish, encoded
    before = Counter(rank.parts.group.books.payload)
    apart = rank.parts.policy.drifted()
    if any(transform.displaces for transform in rank.parts.chain):
        apart = torch.ones(len(rank.server.anchor), dtype=torch.bool)
    reconcile(rank)
    last = Counter(rank.parts.group.books.payload) - before
    return {
        "written": dict(notes.bytes),
        "payload": {kind: count for kind, count in before.items() if count},
        "reconcile": dict(last),
        "apart": 0 if apart is None else int(apart.sum()),
    }
