"""Jobs for ranks whose clients choose what they upload: a run, and all of its choices."""

from typing import Any

import torch

from tests.jobs import experiment_run
from trainer.engine.evaluate import clients_apart
from trainer.engine.round import play


def uploads(
    tree: dict[str, Any], rounds: int, like: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Each round's models and counters, and for each client of this rank its update and upload.

    `like`: the rows of another run; each round then starts from the model and the residuals that
    this other run had, so that a choice within rounding of a threshold changes nothing later.
    """
    run = experiment_run(tree)
    policy = run.policy
    enter, upload = policy.enter, policy.upload
    starts, told, memories = [], [], []

    def entering(params, scratch, memory):
        if like:
            given = like[number - 1]["clients"][here[len(starts)]]["memory"]
            memory.clear()
            memory.update({name: torch.from_numpy(value.copy()) for name, value in given.items()})
        memories.append({name: value.numpy().copy() for name, value in memory.items()})
        enter(params, scratch, memory)
        starts.append(params.double().numpy().copy())

    def uploading(updates, anchor, memory, number):
        (update,) = updates.values()
        row = {"update": update.numpy().copy(), "end": run.round.params.double().numpy().copy()}
        row["values"] = upload(updates, anchor, memory, number)
        row["sent"] = update.numpy().copy()
        told.append(row)
        return row["values"]

    policy.enter, policy.upload = entering, uploading
    sizes = run.clients.sizes
    rows = []
    for number in range(1, rounds + 1):
        sampled = run.clients.sampled(number)
        here = [c for c in sampled if run.clients.owner(c) == run.clients.rank]
        if like:
            run.anchor.copy_(torch.from_numpy(like[number - 1]["before"]))
        before, counted = run.anchor.numpy().copy(), run.tally.state()
        starts.clear(), told.clear(), memories.clear()
        played = play(run, number)
        for client, start, memory, row in zip(here, starts, memories, told, strict=True):
            row["start"], row["weight"] = start, sizes[client] / sum(sizes[c] for c in sampled)
            row["memory"] = memory
        mask, after = played.selection.mask, run.tally.state()
        _, apart = clients_apart(run, "evaluation")
        rows.append(
            {
                "before": before,
                "anchor": run.anchor.numpy().copy(),
                "buffers": run.buffers.numel(),
                "mask": None if mask is None else mask.numpy().copy(),
                "count": played.selection.count,
                "clients": dict(zip(here, [dict(row) for row in told], strict=True)),
                "payload": {k: after["payload"][k] - n for k, n in counted["payload"].items()},
                "wire": {k: after["wire"][k] - n for k, n in counted["wire"].items()},
                "own": dict(run.own.payload),
                "total": dict(run.tally.payload),
                "apart": apart.numpy().copy(),
            }
        )
    return rows
