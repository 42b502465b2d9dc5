"""What tests ask ranks to do: play an experiment for some rounds, and tell all about each."""

from typing import Any

import torch
import torch.distributed as dist

from trainer.config.communication import BF16, FP32
from trainer.config.load import load
from trainer.engine import build as build_module
from trainer.engine.build import build
from trainer.engine.evaluate import evaluate, reconcile
from trainer.engine.round import play
from trainer.engine.run import Run
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
        played = play(run, number, stop=False)
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
        play(run, number, stop=False)
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
    build_module.MODELS["digits-cnn"] = lambda classes, in_shape: torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(),
        torch.nn.Linear(144, classes),
    )  # fmt: skip
    try:
        run = experiment_run(tree)
    finally:
        build_module.MODELS["digits-cnn"] = DigitsCNN
    initial = run.buffers.numpy().copy()
    for number in range(1, rounds + 1):
        play(run, number, stop=False)
    states = run.clients.states.items()
    return {
        "initial_buffers": initial,
        "buffers": run.buffers.numpy().copy(),
        "payload": dict(run.tally.payload),
        "client_buffers": {c: s.buffers.numpy() for c, s in states if s.buffers is not None},
        "accuracy": evaluate(run).accuracy,
    }
