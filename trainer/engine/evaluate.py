"""Owns the tests of the model, and the last average that makes it the mean of all clients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config.communication import FP32
from trainer.engine.run import Run
from trainer.sync.codec import Float32


@dataclass(frozen=True)
class Result:
    """Of the whole test set, and the training since the last evaluation."""

    accuracy: float
    loss: float
    train_loss: float


def evaluate(run: Run) -> Result:
    """Test the model that the run would end with now; each rank takes its share of the test set."""
    with run.clock.phase("evaluate"):
        load_agreed(run)
        if run.experiment.evaluation.model == "mean":
            apart, change = clients_apart(run, "evaluation")
            if apart is not None:
                run.round.params.masked_scatter_(apart, run.anchor[apart] - change)
        correct, loss = run.gradient.evaluate(
            run.x_test, run.y_test, run.experiment.evaluation.batch_size
        )
        numbers = [correct, loss, float(len(run.y_test)), float(run.loss), float(run.samples)]
        correct, loss, tested, train_loss, trained = run.comm.sum_numbers(numbers, "evaluation")
        run.loss.zero_()
        run.samples = 0
    return Result(correct / tested, loss / tested, train_loss / trained if trained else 0.0)


def load_agreed(run: Run) -> None:
    """The agreed model into the network; where clients keep own buffers, the buffers' mean."""
    run.round.params.copy_(run.anchor)
    run.flat.buffers.copy_(run.buffers)
    if run.experiment.model.buffers == "local" and run.buffers.numel():
        run.flat.buffers.copy_(_mean_buffers(run))


def _mean_buffers(run: Run) -> Tensor:
    """Over all clients, weighted; one that has not trained yet still has the initial ones."""
    change, weights = torch.zeros_like(run.buffers), _weights(run)
    for client, state in run.clients.states.items():
        if state.buffers is not None:
            change.add_(run.buffers - state.buffers, alpha=weights[client])
    codec = Float32(FP32())
    return run.buffers - run.comm.sum(change, codec, {"evaluation": change.numel()})


def reconcile(run: Run) -> None:
    """Average what clients hold apart (GWPF's frozen coordinates), so that one model remains."""
    apart, change = clients_apart(run, "reconcile")
    if apart is not None:
        run.anchor.masked_scatter_(apart, run.anchor[apart] - change)
        run.tally.payload["reconcile"] += 4 * change.numel() * run.experiment.clients
        run.own.payload["reconcile"] += 4 * change.numel() * len(run.clients.samplers)


def clients_apart(run: Run, kind: str) -> tuple[Tensor | None, Tensor]:
    """Where clients may differ (bool, P; None: nowhere), and there the mean of anchor - local."""
    apart = run.policy.drifted()
    if apart is None:
        return None, run.anchor[:0]
    change, weights = torch.zeros_like(run.anchor), _weights(run)
    for client, state in sorted(run.clients.states.items()):
        displacement = run.policy.displacement(run.anchor, state.sync)
        if displacement is not None:
            change.add_(displacement, alpha=weights[client])
    change = change[apart]
    return apart, run.comm.sum(change, Float32(FP32()), {kind: change.numel()})


def _weights(run: Run) -> list[float]:
    weights = [run.algorithm.weight(size) for size in run.clients.sizes]
    total = sum(weights)
    return [weight / total for weight in weights]
