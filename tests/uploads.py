"""Jobs for ranks whose clients choose what they upload: a run, and all of its choices."""

from typing import Any

import torch

from tests.jobs import counters, experiment_run, since
from trainer.engine.evaluate import clients_apart
from trainer.engine.round import run_round
from trainer.exchange.transforms.transform import Transform


class Watched:
    """A transform that does what another one does, and notes it for each client.

    given: what clients keep as their turns begin, instead of what they do keep.
    """

    def __init__(self, watched: Transform) -> None:
        self.watched = watched
        self.notes: dict[int, dict[str, Any]] = {}
        self.given: dict[int, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watched, name)

    def entering(self, turn, memory):
        if turn.client in self.given:
            memory.clear()
            memory.update({n: torch.from_numpy(v) for n, v in self.given[turn.client].items()})
        kept = {name: value.numpy().copy() for name, value in memory.items()}
        self.watched.entering(turn, memory)
        start = turn.params.double().numpy().copy()
        self.notes[turn.client] = {"memory": kept, "start": start}

    def outgoing(self, message, vectors, memory, context):
        name, client = vectors[0].name, message.sender.client
        note = self.notes.setdefault(client, {"memory": {}})
        note |= {"update": message.vectors[name].numpy().copy(), "weight": message.sender.weight}
        note["end"] = (context.anchor - message.vectors[name]).double().numpy()
        self.watched.outgoing(message, vectors, memory, context)
        sent = message.vectors[name]
        note["sent"] = sent.numpy().copy()
        note["values"] = int(sent.count_nonzero()) if self.watched.thins else len(sent)
        if message.silent:
            note["values"] = None


def uploads(
    tree: dict[str, Any], rounds: int, like: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Each round's models and counters, and for each client of this rank its update and upload.

    `like`: the rows of another run; each round then starts from the model and the residuals that
    this other run had, so that a choice within rounding of a threshold changes nothing later.
    """
    rank = experiment_run(tree)
    watched = Watched(rank.parts.chain[0])
    rank.parts.chain = (watched, *rank.parts.chain[1:])
    rows = []
    for number in range(1, rounds + 1):
        if like:
            rank.server.anchor.copy_(torch.from_numpy(like[number - 1]["before"]))
            clients = like[number - 1]["clients"]
            watched.given = {c: row["memory"] for c, row in clients.items()}
        before = rank.server.anchor.numpy().copy()
        counted = counters(rank)
        watched.notes = {}
        result = run_round(rank, number)
        own = dict(rank.parts.group.books.payload)
        total = counters(rank)
        difference = since(counted, total)
        mask = result.places.mask
        _, apart = clients_apart(rank, "evaluation")
        rows.append(
            {
                "before": before,
                "anchor": rank.server.anchor.numpy().copy(),
                "mask": None if mask is None else mask.numpy().copy(),
                "count": result.places.count,
                "clients": dict(watched.notes),
                **difference,
                "own": own,
                "total": total["payload"],
                "apart": apart.numpy().copy(),
            }
        )
    return rows
