"""Jobs for the laws of averages within nodes."""

from typing import Any

from tests.jobs import experiment_run
from trainer.engine import nodes
from trainer.engine.round import run_round


def averages(tree: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """Every average on this rank: its client's weight, its step, and its model around it."""
    rank, rows = experiment_run(tree), []
    stepped = nodes.stepped

    def watched(state: Any, own: Any, taken: int, *, last: bool) -> None:
        before = own.clone()
        stepped(state, own, taken, last=last)
        weight = rank.clients.weights[rank.parts.group.rank]
        row = {"weight": weight, "round": rank.server.number, "taken": taken, "last": last}
        rows.append(row | {"before": before.numpy(), "after": own.numpy().copy()})

    nodes.stepped = watched
    try:
        for number in range(1, rounds + 1):
            run_round(rank, number)
            rank.check_agreement()
    finally:
        nodes.stepped = stepped
    return rows
