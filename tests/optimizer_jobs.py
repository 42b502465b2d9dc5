"""Jobs for the laws of optimizers: what clients' steps saw, and what the server's state became."""

from pathlib import Path
from typing import Any

import torch

from tests.jobs import experiment_run
from trainer.engine.round import run_round


def steps(tree: dict[str, Any], rounds: int, folder: str) -> dict[str, Any]:
    """Every local step on this rank, in order, and what clients keep at the end.

    A step: (round, client, eta, parameters before, gradient, parameters after).
    """
    rank, taken = experiment_run(tree, Path(folder)), []
    optimizer = rank.parts.algorithm.optimizer
    step = optimizer.step

    def watched(turn: Any) -> None:
        before, gradient = turn.params.clone(), turn.grads.clone()
        step(turn)
        row = (turn.server.number, turn.client, turn.lr, before, gradient, turn.params.clone())
        taken.append([value.numpy() if torch.is_tensor(value) else value for value in row])

    optimizer.step = watched
    for number in range(1, rounds + 1):
        run_round(rank, number)
    kept = {
        client: {name: tensor.numpy().copy() for name, tensor in record["algorithm"].items()}
        for client, record in rank.store.mine()
        if "algorithm" in record
    }
    return {"taken": taken, "kept": kept}


def server_states(tree: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """After each round: the anchor, the server's state, and the mask; whether anybody sent."""
    rank, sent = experiment_run(tree), 0
    algorithm, server = rank.parts.algorithm, rank.server
    apply = algorithm.apply

    def watched(*args: Any) -> None:
        nonlocal sent
        sent += 1
        apply(*args)

    algorithm.apply = watched  # type: ignore[method-assign]
    rows = [_row(server, None, 0)]
    for number in range(1, rounds + 1):
        mask = run_round(rank, number).places.mask
        rows.append(_row(server, None if mask is None else mask.numpy().copy(), sent))
    return rows


def _row(server: Any, mask: Any, applied: int) -> dict[str, Any]:
    state = {name: vector.numpy().copy() for name, vector in server.state.items()}
    return {"anchor": server.anchor.numpy().copy(), "state": state, "mask": mask, "sent": applied}


def plain(tree: dict[str, Any], rounds: int) -> Any:
    """torch's optimizer on the batches that client 0 draws; the parameters at the end."""
    rank = experiment_run(tree)
    settings, worker, task = rank.experiment.optimizer, rank.parts.worker, rank.parts.task
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    options = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name != "sgd":
        options |= {"betas": (settings.beta1, settings.beta2), "eps": settings.eps}
    optimizer = kind[settings.name](worker.model.parameters(), **options)
    steps = rank.experiment.schedule.phases[0].steps
    places = (rank.clients.sampler.places(0, k) for k in range(rounds * steps))
    for x, y, _ in task.batches(places, None):
        worker.gradient(x, y)
        optimizer.step()
    return worker.params.detach().numpy().copy()
