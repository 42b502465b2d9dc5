"""What tests ask ranks to do: play an experiment for some rounds, and tell all about each."""

import json
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainer.config.communication import BF16, FP32
from trainer.config.load import load
from trainer.engine import build as build_module
from trainer.engine import checkpoint
from trainer.engine.build import build
from trainer.engine.evaluate import evaluate, reconcile
from trainer.engine.loop import Loop
from trainer.engine.round import play
from trainer.engine.run import Run
from trainer.engine.status import Status
from trainer.metrics.recorder import Recorder
from trainer.models.cnn import DigitsCNN
from trainer.sync.codec import BFloat16, Float32
from trainer.sync.comm import Comm
from trainer.sync.tally import Tally

CPU = torch.device("cpu")


def experiment_run(tree: dict[str, Any]) -> Run:
    """A run on this process's ranks, whatever the tree says of them."""
    size = dist.get_world_size() if dist.is_initialized() else 1
    experiment, _ = load(tree | {"ranks": size})
    return build(experiment, CPU)


def history(tree: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """Each round's agreed model, selection, labels and counters, as numpy and numbers."""
    run = experiment_run(tree)
    rows = [{"anchor": run.anchor.numpy().copy(), "buffers": run.buffers.numpy().copy()}]
    for number in range(1, rounds + 1):
        before = run.tally.state()
        played = play(run, number)
        after = run.tally.state()
        mask = played.selection.mask
        frozen = getattr(run.policy, "frozen", torch.zeros(run.flat.size, dtype=torch.bool))
        rows.append(
            {
                "anchor": run.anchor.numpy().copy(),
                "buffers": run.buffers.numpy().copy(),
                "mask": None if mask is None else mask.numpy().copy(),
                "frozen": frozen.numpy().copy(),  # as judged at the end of the round
                "count": played.selection.count,
                "thawed": played.selection.thawed,
                "labelled": played.selection.labelled,
                "clients": played.clients,
                "payload": {k: after["payload"][k] - n for k, n in before["payload"].items()},
                "wire": {k: after["wire"][k] - n for k, n in before["wire"].items()},
                "dense": after["dense"] - before["dense"],
                "samples": after["samples"] - before["samples"],
                "steps": after["steps"] - before["steps"],
            }
        )
    return rows


def final_model(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Train, test the mean model, reconcile, test what is left."""
    run = experiment_run(tree)
    for number in range(1, rounds + 1):
        play(run, number)
    mean = evaluate(run)
    apart = run.policy.drifted() is not None
    reconcile(run)
    run.round.params.copy_(run.anchor)
    correct, loss = run.gradient.evaluate(run.x_test, run.y_test, 500)
    tested = run.comm.sum_numbers([correct, loss, float(len(run.y_test))], "evaluation")
    return {
        "mean": (mean.accuracy, mean.loss),
        "final": (tested[0] / tested[2], tested[1] / tested[2]),
        "apart": apart,
        "tested": int(tested[2]),
        "anchor": run.anchor.numpy().copy(),
        "train_loss": mean.train_loss,
    }


def vote(count: int, most: int, quorum: int) -> tuple[Any, Any]:
    """This rank's votes and what was decided."""
    comm = Comm(Tally(), CPU)
    stream = torch.Generator().manual_seed(comm.rank)
    votes = torch.randint(0, most + 1, (count,), generator=stream, dtype=torch.int32)
    return votes.numpy(), comm.decide(votes, most=most, quorum=quorum).numpy()


def summed(codec: str, count: int) -> tuple[Any, Any]:
    """This rank's vector and the sum over ranks."""
    comm = Comm(Tally(), CPU)
    vector = torch.randn(count, generator=torch.Generator().manual_seed(comm.rank))
    mine = vector.numpy().copy()
    chosen = {"fp32": Float32(FP32()), "bf16": BFloat16(BF16())}[codec]
    return mine, comm.sum(vector, chosen, {"values": count}).numpy()


def agreement(same: bool) -> bool:
    """Whether ranks whose vectors are (or are not) the same notice."""
    comm = Comm(Tally(), CPU)
    return comm.agree(torch.full((3,), 0.0 if same else float(comm.rank)))


def normalised(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Train a small network with BatchNorm; what became of its statistics."""
    run = with_norm(tree)
    initial = run.buffers.numpy().copy()
    for number in range(1, rounds + 1):
        play(run, number)
    states = run.clients.states.items()
    return {
        "initial_buffers": initial,
        "buffers": run.buffers.numpy().copy(),
        "payload": dict(run.tally.payload),
        "dense": run.tally.dense,
        "size": run.flat.size,
        "client_buffers": {c: s.buffers.numpy() for c, s in states if s.buffers is not None},
        "accuracy": evaluate(run).accuracy,
    }


def restored(tree: dict[str, Any], folder: str) -> dict[str, Any]:
    """Play 12 rounds; save after 6, go on from there in a fresh run; what differs at the end."""
    saved = with_norm(tree)
    for number in range(1, 13):
        play(saved, number)
        if number == 6:
            checkpoint.save(saved, number, Path(folder))
            frozen = int(getattr(saved.policy, "frozen_count", 0))
    again = with_norm(tree)
    assert checkpoint.restore(again, Path(folder)) == 6
    for number in range(7, 13):
        play(again, number)
    evaluate(saved), evaluate(again)
    differing: list[str] = []
    states = [checkpoint._state(run, 12) for run in (saved, again)]
    compare(*states, "", differing)
    return {"frozen": frozen, "differing": differing}


def compare(a: Any, b: Any, key: str, differing: list[str]) -> None:
    """The keys at which two states differ; times are no part of a state."""
    if key in ("/clock", "/tally/wire/control"):
        return
    if isinstance(a, dict):
        for name in sorted({*a, *b}, key=str):
            compare(a.get(name), b.get(name), f"{key}/{name}", differing)
    elif isinstance(a, list) and isinstance(b, list):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            compare(x, y, f"{key}/{index}", differing)
    elif not (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b):
        differing.append(key)


def with_norm(tree: dict[str, Any]) -> Run:
    """A run whose network has BatchNorm and dropout."""
    build_module.MODELS["digits-cnn"] = lambda classes, in_shape: torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(),
        torch.nn.Dropout(0.1), torch.nn.Linear(144, classes),
    )  # fmt: skip
    try:
        return experiment_run(tree)
    finally:
        build_module.MODELS["digits-cnn"] = DigitsCNN


def to_the_end(tree: dict[str, Any], folder: str) -> None:
    """The whole life of a run, in this process."""
    run, out = with_norm(tree), Path(folder)
    status, recorder = Status(out, run.comm.rank), Recorder(None, {}, 0)
    before = signal.getsignal(signal.SIGTERM)
    assert Loop(run, out, status, recorder, 0).train()
    signal.signal(signal.SIGTERM, before)


def own_models(tree: dict[str, Any], rounds: int) -> dict[str, Any]:
    """What each client of this rank holds at the end, and what reconciliation makes of it."""
    run = experiment_run(tree)
    for number in range(1, rounds + 1):
        play(run, number)
    own = {}
    for client, state in run.clients.states.items():
        run.round.params.copy_(run.anchor)
        run.policy.enter(run.round.params, run.round.scratch, state.sync)
        own[client] = run.round.params.double().numpy().copy()
    frozen = int(run.policy.frozen.sum())
    reconcile(run)
    return {
        "own": own,
        "sizes": run.clients.sizes,
        "reconciled": run.anchor.numpy().copy(),
        "frozen": frozen,
        "payload": run.tally.payload["reconcile"],
    }


def ddp(tree: dict[str, Any], rounds: int) -> Any:
    """torch's DistributedDataParallel on the samples that a run's clients draw, one per rank."""
    run = experiment_run(tree)
    torch.manual_seed(run.experiment.seed)
    model = DigitsCNN().train().to(run.anchor.dtype)
    model = torch.nn.parallel.DistributedDataParallel(model)
    settings = run.experiment.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    for x, y in run.clients.batches(run.comm.rank, rounds):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(run.gradient.prepare(x)), y).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def life(tree: dict[str, Any], folder: str, norm: bool = False) -> list[dict[str, Any]]:
    """The whole life of a run on these ranks; its rows as rank 0 writes them."""
    run, out = (with_norm if norm else experiment_run)(tree), Path(folder)
    status = Status(out, run.comm.rank)
    recorder = Recorder(out if run.comm.rank == 0 else None, {}, 0)
    before = signal.getsignal(signal.SIGTERM)
    assert Loop(run, out, status, recorder, 0).train()
    signal.signal(signal.SIGTERM, before)
    recorder.close()
    if run.comm.rank:
        return []
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
