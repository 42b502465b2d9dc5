"""What tests ask ranks to do: run an experiment for some rounds, and report on each."""

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainer.config.load import load
from trainer.config.models import MODELS, Network
from trainer.engine.build import build
from trainer.engine.evaluate import evaluate, reconcile
from trainer.engine.loop import Loop
from trainer.engine.mirror import Mirror
from trainer.engine.parts import RankState
from trainer.engine.round import run_round
from trainer.engine.status import Status
from trainer.exchange.books import Books
from trainer.exchange.group import Group
from trainer.exchange.lanes import Poll
from trainer.metrics.catalog import Row
from trainer.metrics.recorder import Recorder

CPU = torch.device("cpu")


def experiment_run(
    tree: dict[str, Any], out: Path | None = None, edges: Sequence[int] = ()
) -> RankState:
    """A run on this process's ranks, whatever the tree says of them."""
    size = dist.get_world_size() if dist.is_initialized() else 1
    experiment, _ = load(tree | {"ranks": size})
    return build(experiment, CPU, out, edges)


def counters(rank: RankState) -> dict[str, Any]:
    """What all ranks have counted so far; adding it up is not counted."""
    world, ledger = rank.parts.world, rank.ledger
    own = world.books.counts()
    if not ledger.speaks:
        own["messages", "formed"] = 0
    sums = world.sum_numbers([float(count) for count in own.values()], None)
    total = Books()
    total.take(dict(zip(own, map(round, sums), strict=True)))
    return {
        **asdict(total),
        "dense": ledger.tally.dense,
        "samples": ledger.tally.samples,
        "steps": ledger.tally.steps,
    }


def since(before: Any, after: Any) -> Any:
    """What was counted in between."""
    if isinstance(after, dict):
        return {key: since(before[key], after[key]) for key in after}
    return after - before


def history(tree: dict[str, Any], rounds: int, placement: str = "dealt") -> list[dict[str, Any]]:
    """Each round's agreed model, places, labels and counters, as numpy and numbers."""
    rank = experiment_run(tree | {"placement": placement})
    server, parts = rank.server, rank.parts
    rows = [{"anchor": server.anchor.numpy().copy(), "buffers": server.buffers.numpy().copy()}]
    for number in range(1, rounds + 1):
        before = counters(rank)
        result = run_round(rank, number)
        counted = since(before, counters(rank))
        mask = result.places.mask
        frozen = getattr(parts.policy, "frozen", torch.zeros(len(server.anchor), dtype=torch.bool))
        rows.append(
            {
                "anchor": server.anchor.numpy().copy(),
                "buffers": server.buffers.numpy().copy(),
                "mask": None if mask is None else mask.numpy().copy(),
                "frozen": frozen.numpy().copy(),  # as judged at the end of the round
                "items": parts.policy.items,
                "count": result.places.count,
                "thawed": result.thawed,
                "labelled": result.labelled,
                "clients": result.clients,
                **counted,
            }
        )
    return rows


def final_model(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Train, evaluate the mean model, reconcile, evaluate what is left."""
    rank = experiment_run(tree)
    for number in range(1, rounds + 1):
        run_round(rank, number)
    mean = evaluate(rank)
    apart = rank.drifted()
    reconcile(rank)
    worker = rank.parts.worker
    worker.enter(rank.server.anchor, rank.server.buffers)
    numbers = [float(n) for n in worker.score(rank.parts.task.test(500))]
    tested = rank.parts.group.sum_numbers(numbers, "evaluation")
    return {
        "mean": (mean.accuracy, mean.loss),
        "final": (tested[0] / tested[2], tested[1] / tested[2]),
        "apart": apart,
        "tested": int(tested[2]),
        "anchor": rank.server.anchor.numpy().copy(),
        "train_loss": mean.train_loss,
    }


def vote(count: int, most: int, quorum: int) -> tuple[Any, Any]:
    """This rank's votes and what was decided."""
    group = Group(Books(), CPU)
    stream = torch.Generator().manual_seed(group.rank)
    votes = torch.randint(0, most + 1, (count,), generator=stream, dtype=torch.int32)
    return votes.numpy(), group.vote(Poll(votes, most, quorum)).numpy()


def agreement(same: bool) -> bool:
    """Whether ranks whose vectors are (or are not) the same notice."""
    group = Group(Books(), CPU)
    return group.all_equal(torch.full((3,), 0.0 if same else float(group.rank)))


def told_first() -> tuple[list[bytes], int]:
    """What of every rank's bytes is here, and what this rank has sent."""
    group = Group(Books(), CPU)
    return group.to_first(b"x" * (1000 * group.rank), "control"), group.books.wire["control"]


def normalised(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Train a small network with BatchNorm; what became of its statistics."""
    rank = with_norm(tree)
    initial = rank.server.buffers.numpy().copy()
    for number in range(1, rounds + 1):
        run_round(rank, number)
    totals = counters(rank)
    return {
        "initial_buffers": initial,
        "buffers": rank.server.buffers.numpy().copy(),
        "payload": totals["payload"],
        "dense": totals["dense"],
        "size": len(rank.server.anchor),
        "client_buffers": {
            client: record["buffers"]["buffers"].numpy()
            for client, record in rank.store.mine()
            if "buffers" in record
        },
        "accuracy": evaluate(rank).accuracy,
    }


def norm_network(classes: int, in_shape: tuple[int, int, int]) -> torch.nn.Module:
    """A small network with BatchNorm and dropout."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(),
        torch.nn.Dropout(0.1), torch.nn.Linear(144, classes),
    )  # fmt: skip


def with_norm(tree: dict[str, Any], out: Path | None = None) -> RankState:
    """A run whose network has BatchNorm and dropout."""
    listed, MODELS["digits-cnn"] = MODELS["digits-cnn"], Network("tests.jobs:norm_network")
    try:
        return experiment_run(tree, out)
    finally:
        MODELS["digits-cnn"] = listed


def own_models(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """What each client of this rank holds at the end, and what reconciliation makes of it."""
    rank = experiment_run(tree)
    for number in range(1, rounds + 1):
        run_round(rank, number)
    own = {}
    for client, record in rank.store.mine():
        apart = rank.parts.policy.displacement(rank.server.anchor, record.get("policy", {}))
        local = rank.server.anchor if apart is None else rank.server.anchor - apart
        own[client] = local.double().numpy().copy()
    places = rank.parts.policy.drifted()
    reconcile(rank)
    return {
        "own": own,
        "sizes": rank.clients.sizes,
        "reconciled": rank.server.anchor.numpy().copy(),
        "apart": 0 if places is None else int(places.sum()),
        "payload": counters(rank)["payload"]["reconcile"],
    }


def ddp(tree: dict[str, Any], rounds: int) -> Any:
    """torch's DistributedDataParallel on the samples that a run's clients draw, one per rank."""
    rank = experiment_run(tree)
    client, task = rank.parts.group.rank, rank.parts.task
    torch.manual_seed(rank.experiment.seed)
    model = MODELS["digits-cnn"]().train().to(rank.server.anchor.dtype)
    model = torch.nn.parallel.DistributedDataParallel(model)
    settings = rank.experiment.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    places = (rank.clients.sampler.places(client, k) for k in range(rounds))
    for x, y, _ in task.batches(places, None):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(task.inputs(x)), y).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def life(tree: dict[str, Any], folder: str, norm: bool = False) -> list[dict[str, Any]]:
    """The whole life of a run on these ranks; its rows as rank 0 writes them."""
    out = Path(folder)
    return lived((with_norm if norm else experiment_run)(tree, out), out)


def lived(rank: RankState, out: Path) -> list[dict[str, Any]]:
    """The whole life of a run that is assembled; its rows on the first of all ranks."""
    number = rank.parts.world.rank  # with a pipeline each stage has a group of its own
    status, recorder = Status(out, number), Recorder(None if number else out, {}, 0)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert Loop(rank, Mirror(out, number), status, recorder, 0).train()
    finally:
        signal.signal(signal.SIGTERM, before)
        recorder.close()
    if number:
        return []
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def sent_in_a_life(tree: dict[str, Any], folder: str, norm: bool = False) -> tuple[int, int]:
    """Bytes that this rank has sent as a whole run ends; on rank 0, what the last row says."""
    rank = (with_norm if norm else experiment_run)(tree, Path(folder))
    *_, last = lived(rank, Path(folder)) or [None]
    sent = sum(rank.parts.world.books.wire.values())
    if last is None:
        return sent, 0
    assert last["final"]
    return sent, sum(last["wire_bytes_total"].values())


def row(rank: RankState, number: int) -> Row:
    """A row of metrics after a round, without an evaluation."""
    values = Row(round=number, time_seconds=rank.clock.training)
    rank.ledger.fill(values)
    return values
