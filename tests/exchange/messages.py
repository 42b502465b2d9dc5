"""Jobs for ranks whose clients send vectors of random values through a reduction."""

from typing import Any

import torch

from trainer.exchange.books import Books
from trainer.exchange.encoders import Blocks, Plain, Sparse
from trainer.exchange.group import Group
from trainer.exchange.message import BUFFERS, Cohort, Message, Participant, Places, Terms, Vector
from trainer.exchange.reductions.all_reduce import AllReduce
from trainer.exchange.reductions.owners import Owners
from trainer.exchange.reductions.reduction import Handle, Reduction

VECTORS = (Vector("delta"), Vector("control", leftover="again", over="everyone"), BUFFERS)
WEIGHTS = (0.1, 0.2, 0.3, 0.25, 0.15)  # of the clients that take part, of 8
NORMS = 3  # exact values of each client


def reduction(name: str) -> Reduction:
    """A new reduction, by the codec's name; thin: for messages that are mostly zeros."""
    bf16 = Plain(torch.bfloat16)
    return {
        "fp32": lambda: AllReduce(torch.float32),
        "fp32, thin": lambda: AllReduce(torch.float32, sparse=True),
        "bf16": lambda: Owners(bf16, bf16),
        "bf16, thin": lambda: Owners(Sparse(bf16), bf16),
        "int8": lambda: Owners(Blocks(64), Blocks(64, unbiased=True)),
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
) -> dict[str, Any]:
    """The means on this rank, what the others got of its clients, and what was counted.

    share: of the places that travel, None: no mask; stopping: the rank that was asked to stop.
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
    delivery = Handle(exchange.finish(places, group.rank == stopping)).wait()
    return {
        "mean": {name: vector.numpy().copy() for name, vector in delivery.mean.items()},
        "sent": sent,
        "stop": delivery.stop,
        "payload": dict(group.books.payload),
        "wire": dict(group.books.wire),
        "formed": group.books.formed,
        "mask": mask.numpy(),
    }
