"""Jobs for the laws of what is kept, coded and counted: runs of which every message is watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tests.jobs import experiment_run, with_norm
from trainer.engine import checkpoint
from trainer.engine.evaluate import evaluate, reconcile
from trainer.engine.outbox import Outbox
from trainer.engine.parts import RankState
from trainer.engine.round import run_round
from trainer.exchange.encoders import Plain
from trainer.exchange.reductions.owners import Owners
from trainer.exchange.transforms.error_feedback import ErrorFeedback
from trainer.exchange.transforms.transform import Transform
from trainer.storage.folder import Folder


def controls(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """SCAFFOLD's controls after some rounds: the server's, and those of this rank's clients."""
    rank = experiment_run(tree)
    for number in range(1, rounds + 1):
        run_round(rank, number)
    kept = {c: record.get("algorithm", {}).get("control") for c, record in rank.store.mine()}
    return {
        "server": rank.server.state["control"].double().numpy(),
        "clients": {c: own.double().numpy() for c, own in kept.items() if own is not None},
        "anchor": rank.server.anchor.numpy().copy(),
        "labelled": rank.parts.policy.labelled,
    }


class Accounts:
    """Around a chain: what each client offers it and what the others got, added up."""

    def __init__(self) -> None:
        self.offered: dict[int, Any] = {}
        self.sent: dict[int, Any] = {}
        self.last_offered: dict[int, Any] = {}
        self.last_sent: dict[int, Any] = {}
        self.messages: dict[int, Any] = {}
        self.silent = 0

    def first(self) -> Transform:
        """Sees offers before the chain, and deliveries after it."""
        accounts = self

        class First(Transform):
            keeps = True

            def outgoing(self, message, vectors, memory, context):
                client = message.sender.client
                accounts.messages[client] = message
                offer = message.vectors[vectors[0].name].double().numpy().copy()
                accounts.last_offered[client] = offer
                memory["client"] = torch.tensor(client)

            def delivered(self, vectors, sent, memory):
                client = int(memory["client"])
                if accounts.messages.pop(client).silent:  # what it offered is forgotten
                    accounts.silent += 1
                    return
                got = sent[vectors[0].name].double().numpy().copy()
                offer = accounts.last_offered[client]
                accounts.last_sent[client] = got
                accounts.offered[client] = accounts.offered.get(client, 0) + offer
                accounts.sent[client] = accounts.sent.get(client, 0) + got

        return First()


def accounted(tree: dict[str, Any], rounds: int) -> dict[int, dict[str, Any]]:
    """For each client of this rank: all it offered, all the others got, and what it still holds.

    Clients stay where they are, so that one rank sees all of a client.
    """
    rank, accounts = experiment_run(tree | {"placement": "fixed"}), Accounts()
    rank.parts.chain = (accounts.first(), *rank.parts.chain)
    for number in range(1, rounds + 1):
        run_round(rank, number)
    name = rank.parts.algorithm.vectors[0].name
    rows = {}
    for client, record in rank.store.mine():
        if client not in accounts.sent:  # never sent anything
            continue
        held = [m[name].double().numpy() for m in record.values() if name in m]
        rows[client] = {
            "offered": accounts.offered[client],
            "sent": accounts.sent[client],
            "last": accounts.last_offered[client] - accounts.last_sent[client],
            "silent": accounts.silent,
            "held": sum(held, np.zeros(len(rank.server.anchor))),
        }
    return rows


def models(
    tree: dict[str, Any], rounds: int, change: str = "", norm: bool = False
) -> list[dict[str, Any]]:
    """Each round's model and mask; `change` replaces a part by another one that loses nothing."""
    rank = (with_norm if norm else experiment_run)(tree)
    if change == "error feedback":
        rank.parts.chain = (*rank.parts.chain, ErrorFeedback())
        rank.store.empty = False
    elif change == "owners":
        rank.parts.reduction = rank.parts.once = Owners(Plain(torch.float32), Plain(torch.float32))
    rows = []
    for number in range(1, rounds + 1):
        places = run_round(rank, number).places
        rows.append(
            {
                "anchor": rank.server.anchor.numpy().copy(),
                "buffers": rank.server.buffers.numpy().copy(),
                "mask": None if places.mask is None else places.mask.numpy().copy(),
            }
        )
    return rows


def stored(tree: dict[str, Any], rounds: int, folder: str) -> dict[str, Any]:
    """A run with a memory budget: its model, and how much lay in memory and in files."""
    rank = experiment_run(tree, Path(folder))
    most, filed, together = 0, 0, 0
    reading = rank.store.record

    def record(client):
        nonlocal together
        result = reading(client)
        together = max(together, len(rank.store.records))
        return result

    rank.store.record = record
    for number in range(1, rounds + 1):
        run_round(rank, number)
        used = sum(
            t.numel() * t.element_size()
            for record in rank.store.records.values()
            for memory in record.values()
            for t in memory.values()
        )
        most, filed = max(most, used), max(filed, len(rank.store.filed))
    result = evaluate(rank)
    reconcile(rank)
    files = len(list(rank.store.folder.glob("*.safetensors"))) if filed else 0
    rank.store.close()
    return {
        "anchor": rank.server.anchor.numpy().copy(),
        "accuracy": result.accuracy,
        "most": most,
        "filed": filed,
        "together": together,
        "files": files,
        "left": rank.store.folder.exists() and tree.get("client_memory") is not None,
        "moved": rank.parts.group.books.wire["moves"],
    }


def payload(tree: dict[str, Any], rounds: int) -> dict[str, int]:
    """What all clients uploaded, by kind."""
    rank = experiment_run(tree)
    for number in range(1, rounds + 1):
        run_round(rank, number)
    rank.ledger.settle()
    return dict(rank.ledger.total.payload)


def waiting(tree: dict[str, Any], rounds: int) -> int:
    """The most messages that waited on this rank at a time."""
    rank, most = experiment_run(tree), 0
    offer = Outbox.offer

    def offering(self, message, ballot):
        nonlocal most
        offer(self, message, ballot)
        most = max(most, len(self.waiting))

    Outbox.offer = offering
    try:
        for number in range(1, rounds + 1):
            run_round(rank, number)
    finally:
        Outbox.offer = offer
    return most


# ---------------------------------------------------------------------------------------------
# bytes


@contextmanager
def spied() -> Iterator[dict[str, int]]:
    """Counts what is handed to torch.distributed meanwhile, by the algorithm of each collective."""
    counted = {"sent": 0, "calls": 0}
    size, me = dist.get_world_size(), dist.get_rank()
    originals = {n: getattr(dist, n) for n in ("all_reduce", "all_to_all_single", "isend")}

    def nbytes(tensor: torch.Tensor) -> int:
        return tensor.numel() * tensor.element_size()

    def all_reduce(tensor, *args, **kwargs):
        counted["calls"] += 1
        whole, rest = divmod(2 * (size - 1) * nbytes(tensor), size)
        counted["sent"] += whole + (me < rest)
        return originals["all_reduce"](tensor, *args, **kwargs)

    def all_to_all_single(output, data, outputs=None, inputs=None, *args, **kwargs):
        counted["calls"] += 1
        own = inputs[me] if inputs else data.numel() // size
        counted["sent"] += (data.numel() - own) * data.element_size()
        return originals["all_to_all_single"](output, data, outputs, inputs, *args, **kwargs)

    batch = dist.batch_isend_irecv

    def batch_isend_irecv(ops):
        counted["calls"] += 1
        counted["sent"] += sum(nbytes(op.tensor) for op in ops if op.op is dist.isend)
        return batch(ops)

    dist.all_reduce, dist.all_to_all_single = all_reduce, all_to_all_single
    dist.batch_isend_irecv = batch_isend_irecv
    try:
        yield counted
    finally:
        dist.all_reduce = originals["all_reduce"]
        dist.all_to_all_single = originals["all_to_all_single"]
        dist.batch_isend_irecv = batch


def collectives(tree: dict[str, Any], rounds: int) -> list[tuple[int, int]]:
    """Of each round: how many coordinates were frozen as it began, and its collectives."""
    rank, rows = experiment_run(tree), []
    for number in range(1, rounds + 1):
        labelled = rank.parts.policy.labelled
        with spied() as counted:
            run_round(rank, number)
        rows.append((labelled, counted["calls"]))
    return rows


def handed_over(tree: dict[str, Any], rounds: int, folder: str) -> dict[str, Any]:
    """Bytes that this rank handed to torch.distributed, and those in its books; rounds, an
    evaluation, a checkpoint, a reconciliation."""
    rank: RankState = experiment_run(tree, Path(folder))
    before = sum(rank.parts.group.books.wire.values())
    with spied() as counted:
        for number in range(1, rounds + 1):
            run_round(rank, number)
            rank.ledger.settle()
        evaluate(rank)
        checkpoint.save(rank, rounds, Folder(Path(folder)))
        reconcile(rank)
        rank.ledger.settle()
    books = rank.parts.group.books
    return {
        "counted": sum(books.wire.values()) - before,
        "handed": counted["sent"],
        "calls": counted["calls"],
        "ledger": sum(rank.ledger.total.wire.values()),
        "payload": dict(books.payload),
        "total": dict(rank.ledger.total.payload),
        "own_samples": rank.ledger.own.samples,
        "rank_samples": rank.ledger.rank_samples,
        "samples": rank.ledger.tally.samples,
        "idle": rank.ledger.idle,
    }
