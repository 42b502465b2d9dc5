"""Jobs for the laws of exchanges that are under way while clients train."""

from typing import Any

import torch

from tests.jobs import experiment_run
from trainer.engine import arrival
from trainer.engine.round import run_round


def watched(tree: dict[str, Any], rounds: int, polls: bool = True) -> dict[str, Any]:
    """Each round's agreed model and this rank's client at its end, and each arrival.

    polls False: nobody looks whether an exchange is over before its mean is due.
    """
    rank, arrivals, taken = experiment_run(tree), [], 0
    policy, worker = rank.parts.policy, rank.parts.worker
    mix, gradient = policy.mix, worker.gradient

    def counting(x: Any, y: Any) -> Any:
        nonlocal taken
        taken += 1
        return gradient(x, y)

    def mixing(own: Any, anchor: Any, places: Any) -> None:
        before = own.clone()
        mix(own, anchor, places)
        row = {"before": before, "anchor": anchor.clone(), "after": own.clone()}
        mask = torch.ones_like(own, dtype=torch.bool) if places.mask is None else places.mask
        row |= {"mask": mask, "taken": torch.tensor(taken)}
        arrivals.append({name: tensor.numpy() for name, tensor in row.items()})

    worker.gradient, policy.mix = counting, mixing
    if not polls:
        rank.overlap.poll = lambda: 0.0
    anchors, own, payload = [rank.server.anchor.numpy().copy()], [], []
    for number in range(1, rounds + 1):
        taken = 0
        run_round(rank, number)
        anchors.append(rank.server.anchor.numpy().copy())
        (client,) = rank.store.clients
        own.append(rank.store.memory(client, "policy")["local"].numpy().copy())
        payload.append(rank.parts.group.books.payload["values"])
    assert rank.overlap.pending == arrival.finish(rank)
    last = rank.store.memory(rank.store.clients[0], "policy")["local"].numpy()
    weights = {m.client: m.weight for m in rank.clients.cohort(rounds + 1, rank.store.home).members}
    return {
        "anchors": [*anchors, rank.server.anchor.numpy().copy()],
        "own": [*own, last],
        "arrivals": arrivals,
        "payload": payload,
        "weight": weights[client],
        "hidden": rank.clock.hidden,
    }
