"""Jobs for ranks whose clients send vectors of random values through a reduction."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.config.codecs import LowRank as Codec
from trainer.exchange.books import Books
from trainer.exchange.encoders import Blocks, Plain, Sparse
from trainer.exchange.float8 import Float8
from trainer.exchange.group import Group
from trainer.exchange.lanes import Poll
from trainer.exchange.message import BUFFERS, Cohort, Message, Participant, Places, Terms, Vector
from trainer.exchange.reductions.all_reduce import AllReduce
from trainer.exchange.reductions.low_rank import LowRank
from trainer.exchange.reductions.owners import Owners
from trainer.exchange.reductions.random_k import RandomK
from trainer.exchange.reductions.reduction import Handle, Reduction
from trainer.exchange.reductions.residuals import Residuals
from trainer.exchange.signs import Signs
from trainer.exchange.top_k import TopK
from trainer.layout import Layout

VECTORS = (Vector("delta"), Vector("control", leftover="again", over="everyone"), BUFFERS)
WEIGHTS = (0.1, 0.2, 0.3, 0.25, 0.15)  # of the clients that take part, of 8
NORMS = 3  # exact values of each client


def reduction(name: str) -> Reduction:
    """A new reduction, by the codec's name; thin: for messages that are mostly zeros."""
    bf16 = Plain(torch.bfloat16)
    few = [TopK(0.1, 64, levels=levels) for levels in (1, 1, 2)]
    return {
        "fp32": lambda: AllReduce(torch.float32),
        "fp32, thin": lambda: AllReduce(torch.float32, sparse=True),
        "bf16": lambda: Owners(bf16, bf16),
        "bf16, thin": lambda: Owners(Sparse(bf16), bf16),
        "int8": lambda: Owners(Blocks(64), Blocks(64, unbiased=True)),
        "int4": lambda: Owners(Blocks(64, bits=4), Blocks(64, bits=4, unbiased=True)),
        "fp8": lambda: Owners(Float8(64), Float8(64, unbiased=True)),
        "sign": lambda: Owners(Signs(64), Blocks(64), residuals=Residuals()),
        "sparse": lambda: Owners(*few[:2], down=few[2], residuals=Residuals()),
        "randomk": lambda: RandomK(AllReduce(torch.float32), 0.05),
        "randomk, all": lambda: RandomK(AllReduce(torch.float32), 1.0),
        "randomk, int8": lambda: RandomK(Owners(Blocks(64), Blocks(64)), 0.05),
        "int8, thin": lambda: Owners(Sparse(Blocks(64)), Blocks(64, unbiased=True)),
    }[name]()


def values(client: int, count: int, thin: bool) -> dict[str, torch.Tensor]:
    """What a client sends, the same on whatever rank it is trained."""
    draws = torch.Generator().manual_seed(client)
    lengths = {"delta": count, "control": count, "buffers": NORMS}
    vectors = {name: torch.randn(n, generator=draws) for name, n in lengths.items()}
    if thin:
        vectors["delta"].masked_fill_(torch.rand(count, generator=draws) < 0.9, 0)
    return vectors


def exchanged(
    name: str,
    count: int,
    share: float | None = None,
    stopping: int = -1,
    clients: int = len(WEIGHTS),
    items: int = 0,
) -> dict[str, Any]:
    """The means on this rank, what the others got of its clients, and what was counted.

    share: of the places that travel, None: no mask; stopping: the rank that was asked to stop;
    items: that are voted on beside the values, 0: no poll.
    """
    group = Group(Books(), torch.device("cpu"))
    total = sum(WEIGHTS[:clients])
    cohort = Cohort(
        1,
        tuple(
            Participant(c, c % group.size, weight / total, steps=1, samples=1, everyone=1 / 8)
            for c, weight in enumerate(WEIGHTS[:clients])
        ),
    )
    draw = torch.rand(count, generator=torch.Generator().manual_seed(99))
    mask = draw < (1.0 if share is None else share)
    places = Places(count) if share is None else Places(count, mask)
    lengths = {"buffers": NORMS}
    terms = Terms(cohort, VECTORS, count, 7, places, lengths, report=True)
    exchange = reduction(name).begin(group, terms)
    sent = {}
    for member in cohort.at(group.rank):
        vectors = values(member.client, count, "thin" in name)
        vectors["delta"].mul_(mask), vectors["control"].mul_(mask)
        report = exchange.add(Message(member, vectors))
        sent[member.client] = {name: vector.numpy().copy() for name, vector in report.items()}
    poll = ballots(group.rank, items) if items else None
    delivery = Handle(exchange.finish(places, group.rank == stopping, poll)).wait()
    return {
        "votes": None if poll is None else poll.votes.numpy(),
        "decided": None if delivery.decided is None else delivery.decided.numpy(),
        "mean": {name: vector.numpy().copy() for name, vector in delivery.mean.items()},
        "sent": sent,
        "stop": delivery.stop,
        "payload": dict(group.books.payload),
        "wire": dict(group.books.wire),
        "formed": group.books.formed,
        "mask": mask.numpy(),
    }


def ballots(rank: int, items: int) -> Poll:
    """The votes of a rank's clients, up to 2 for each item; of four, three decide."""
    draws = torch.Generator().manual_seed(rank)
    return Poll(torch.randint(0, 3, (items,), generator=draws, dtype=torch.int32), 2, 3)


def fed_back(
    name: str, count: int, rounds: int, away: int = -1, reload: int = -1
) -> dict[str, Any]:
    """Rounds in which each client adds what the others did not get of its update to the next one.

    away: a round in which no client sends anything; reload: one before which a fresh reduction
    takes over what a checkpoint would hold of the old one. Returns the sums over all rounds of each
    client's updates and of what arrived of them; what clients and owners keep at the end; each
    round's mean, and the payload of all.
    """
    group, code = Group(Books(), torch.device("cpu")), reduction(name)
    members = tuple(
        Participant(c, c % group.size, weight, steps=1, samples=1, everyone=1 / 8)
        for c, weight in enumerate(WEIGHTS)
    )
    kept = [torch.zeros(count) for _ in members]
    offered, arrived = (torch.zeros(len(members), count, dtype=torch.float64) for _ in range(2))
    means: list[Tensor] = []
    for number in range(rounds):
        if number == reload:
            code.gather(group)
            state, code = code.state(), reduction(name)
            code.load(state)
        cohort = Cohort(number, () if number == away else members)
        places = Places(count)
        terms = Terms(cohort, (Vector("delta"),), count, 7, places, report=True)
        exchange = code.begin(group, terms)
        for member in cohort.at(group.rank):
            client, draws = member.client, torch.Generator().manual_seed(100 * number)
            update = torch.randn(len(members), count, generator=draws)[client] / (1 + client)
            offered[client] += update
            kept[client] += update
            told = exchange.add(Message(member, {"delta": kept[client].clone()}))
            assert told is not None
            kept[client] -= told["delta"]
            arrived[client] += told["delta"]
        means.append(Handle(exchange.finish(places, False)).wait().mean["delta"].clone())
    code.gather(group)
    owners = code.state().get("residuals", {}).get("delta", torch.zeros(count))
    return {
        "means": [mean.numpy() for mean in means],
        "offered": offered.numpy(),
        "arrived": arrived.numpy(),
        "kept": torch.stack(kept).numpy(),
        "owners": owners.numpy().copy(),
        "payload": sum(group.books.payload.values()),
    }


SHAPES = [("conv", (6, 5, 3, 3)), ("bias", (6,)), ("fc", (40, 24)), ("last", (3, 4))]
LAYOUT = Layout(SHAPES)


def factored(
    settings: dict[str, Any],
    sent: list[Tensor],
    rounds: int = 1,
    vectors: Sequence[Vector] = (),
    items: int = 0,
    mask: Tensor | None = None,
) -> list[dict[str, Any]]:
    """Means by low rank on this rank in each round, what its clients are told, and the bytes.

    sent: (rounds x P) of each client; items: that are voted on, 0: no poll; mask: of the rows that
    travel in all rounds but the first, None: all do.
    """
    group, reduction = Group(Books(), torch.device("cpu")), LowRank(Codec(**settings), LAYOUT, 3)
    vectors = tuple(vectors) or (Vector("delta"),)
    members = tuple(
        Participant(c, c % group.size, 1 / len(sent), steps=1, samples=1, everyone=1 / 8)
        for c in range(len(sent))
    )
    found = []
    for number in range(rounds):
        places = Places(LAYOUT.size, mask if number else None)
        cohort = Cohort(number + 1, members)
        terms = Terms(cohort, vectors, LAYOUT.size, 7, places, report=True)
        exchange = reduction.begin(group, terms)
        mine = cohort.at(group.rank)
        for member in mine:
            own = {v.name: sent[member.client][number].clone() for v in vectors}
            assert exchange.add(Message(member, own)) is None
        poll = ballots(group.rank, items) if items else None
        delivery = Handle(exchange.finish(places, False, poll)).wait()
        assert delivery.report is not None
        told = {member.client: delivery.report(member.client) for member in mine}
        found.append(
            {
                "mean": {name: mean.numpy().copy() for name, mean in delivery.mean.items()},
                "told": {c: {n: v.numpy() for n, v in own.items()} for c, own in told.items()},
                "votes": None if poll is None else poll.votes.numpy(),
                "decided": None if delivery.decided is None else delivery.decided.numpy(),
                "payload": sum(group.books.payload.values()),
                "formed": group.books.formed,
                "ranks": [m.full_rank for m in reduction.formats.whole.matrices],
            }
        )
    return found
