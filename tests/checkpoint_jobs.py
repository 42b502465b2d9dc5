"""What tests ask ranks to do around a checkpoint: save, resume, and compare what there is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.jobs import experiment_run, with_norm
from trainer.engine import checkpoint, state
from trainer.engine.evaluate import evaluate
from trainer.engine.parts import RankState
from trainer.engine.round import run_round
from trainer.storage.folder import Folder

# Clients keep momentum, the policy its averages; three checkpoints stay.
KEEPING: dict[str, Any] = {
    "rounds": 9,
    "clients": 4,
    "optimizer": {"momentum": 0.9, "state": "keep"},
    "sync": {"name": "apf"},
    "checkpoint": {"keep": 3},
}


def restored(tree: dict[str, Any], folder: str) -> dict[str, Any]:
    """Run 12 rounds; save after 6, resume there in a fresh run; what differs at the end."""
    return through_and_resumed(with_norm, tree, folder, rounds=12)


def through_and_resumed(
    make: Callable[[dict[str, Any], Path], RankState],
    tree: dict[str, Any],
    folder: str,
    rounds: int,
) -> dict[str, Any]:
    """Save at half way, resume there in a fresh run; what was frozen there, and what differs."""
    half, place = rounds // 2, Folder(Path(folder))
    saved = make(tree, Path(folder) / "one")
    for number in range(1, rounds + 1):
        run_round(saved, number)
        saved.ledger.settle()
        if number == half:
            checkpoint.save(saved, number, place)
            frozen = int(getattr(saved.parts.policy, "labelled", 0))
    again = make(tree, Path(folder) / "other")
    assert checkpoint.restore(again, place)[0] == half
    for number in range(half + 1, rounds + 1):
        run_round(again, number)
        again.ledger.settle()
    evaluate(saved), evaluate(again)
    differing: list[str] = []
    compare(everything(saved), everything(again), "", differing)
    return {"frozen": frozen, "differing": differing, "records": len(dict(saved.store.mine()))}


def everything(rank: RankState) -> dict[str, Any]:
    """All state of a rank, as a checkpoint holds it."""
    if rank.overlap:
        rank.overlap.settle()
    records = {client: record for client, record in rank.store.mine()}
    agreed = state.agreed(rank) | {"anchor": rank.server.anchor, "buffers": rank.server.buffers}
    return {"agreed": agreed, "own": state.own(rank), "kept": records}


def compare(a: Any, b: Any, key: str, differing: list[str]) -> None:
    """The keys at which two states differ; times are no part of a state."""
    if key in (
        "/own/seconds",
        "/own/hidden",
        "/own/books/wire/control",
        "/agreed/ledger/total/wire/control",
        "/agreed/ledger/federated",
    ) or (key == "/agreed/ledger/idle"):
        return
    if isinstance(a, dict):
        for name in sorted({*a, *b}, key=str):
            compare(a.get(name), b.get(name), f"{key}/{name}", differing)
    elif isinstance(a, list) and isinstance(b, list):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            compare(x, y, f"{key}/{index}", differing)
    elif not (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b):
        differing.append(key)


def saved_after(tree: dict[str, Any], rounds: int, folder: str) -> dict[str, Any]:
    """Run so many rounds, and save; what is the same on all ranks."""
    rank = experiment_run(tree)
    for number in range(1, rounds + 1):
        run_round(rank, number)
        rank.ledger.settle()
    checkpoint.save(rank, rounds, Folder(Path(folder)))
    return of_all(rank) | {"homes": list(rank.store.home)}


def resumed_for(tree: dict[str, Any], rounds: int, folder: str) -> dict[str, Any]:
    """Resume there; what there is then, after which so many rounds must run."""
    rank = experiment_run(tree)
    done, _ = checkpoint.restore(rank, Folder(Path(folder)))
    rank.ledger.settle()
    found = of_all(rank) | {"done": done, "clients": rank.store.clients}
    for number in range(done + 1, done + rounds + 1):
        run_round(rank, number)
    assert rank.parts.group.all_equal(rank.server.anchor)
    return found | {"end": rank.server.anchor.numpy().copy()}


def of_all(rank: RankState) -> dict[str, Any]:
    return {
        "anchor": rank.server.anchor.numpy().copy(),
        "payload": dict(rank.ledger.total.payload),
        "rank_samples": list(rank.ledger.rank_samples),
    }
