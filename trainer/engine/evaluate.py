"""Evaluation of the model, and the last average that makes it the mean of all clients.

When a round is evaluated is decided in plan.py; losses and scores are the task's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log

import torch
from torch import Tensor

from trainer.engine.parts import RankState
from trainer.keys import Purpose, stream

MOST = 1e300  # a perplexity above it would overflow in the statistics of several runs


@dataclass(frozen=True)
class Result:
    """Scores on the whole test set, and the training loss since the last evaluation."""

    accuracy: float
    loss: float
    train_loss: float | None
    perplexity: float | None = None  # None: not of tokens, or not finite


def evaluate(rank: RankState) -> Result:
    """Evaluate the model that the run would save now, each rank on its share of the test set.

    With evaluation.model=agreed it is the agreed model. The ledger is settled in the same
    collective.
    """
    settings = rank.experiment.evaluation
    with rank.clock.phase("evaluate"):
        load_agreed(rank)
        if settings.model == "mean":
            apart, change = clients_apart(rank, "evaluation")
            if apart is not None:
                anchor, params = rank.server.anchor, rank.parts.worker.params
                params.masked_scatter_(apart, anchor[apart] - change)
        estimate_buffers(rank)
        numbers = rank.parts.worker.score(rank.parts.task.test(settings.batch_size))
        right, loss, count, train_loss, trained = rank.ledger.settle(
            [*numbers, float(rank.loss.sum), rank.loss.samples]
        )
        rank.loss.clear()
    return Result(
        right / count,
        loss / count,
        train_loss / trained if trained else None,
        perplexity(loss / count) if rank.parts.task.perplexed else None,
    )


def perplexity(loss: float) -> float | None:
    """Return exp(loss), the loss in nats; None if it is not finite, or no use as a number."""
    return exp(loss) if loss < log(MOST) else None  # false for NaN as well


def load_agreed(rank: RankState) -> None:
    """Load the agreed model into the network, with the mean of buffers that clients keep."""
    buffers = _mean_buffers(rank) if rank.keeps_buffers else rank.server.buffers
    rank.parts.worker.enter(rank.server.anchor, buffers)


def _mean_buffers(rank: RankState) -> Tensor:
    """Return the weighted mean over all clients; one without training has the initial buffers."""
    buffers, shares = rank.server.buffers, rank.clients.shares
    change = torch.zeros_like(buffers)
    for client, record in rank.store.mine():
        if "buffers" in record:
            change.add_(buffers - record["buffers"]["buffers"], alpha=shares[client])
    rank.parts.group.all_reduce(change, {"evaluation": len(change)}).wait()
    return buffers - change


@torch.no_grad()
def estimate_buffers(rank: RankState) -> None:
    """Estimate BatchNorm's statistics again for the model in the network, over training batches.

    There are evaluation.bn_batches of them, divided among the ranks (Gu et al. 2023, appendix on
    evaluation).
    """
    batches = rank.experiment.evaluation.bn_batches
    worker, group = rank.parts.worker, rank.parts.group
    if not batches or not worker.whole.buffers:
        return
    passes = max(1, batches // group.size)
    draws = stream(rank.experiment.seed, Purpose.ESTIMATE, group.rank, rank.server.number)
    places = _drawn(rank, passes, draws)
    worker.estimate(rank.parts.task.batches(places, draws, training=False))
    worker.buffers.div_(group.size)
    group.all_reduce(worker.buffers, {"evaluation": len(worker.buffers)}).wait()


def _drawn(rank: RankState, passes: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Places of training samples for so many passes, from all that clients here may train on."""
    size, held = rank.clients.sampler.batch_size(rank.parts.group.rank), rank.clients.samples
    chosen = torch.randint(len(held), (passes, size), generator=draws)
    return iter(held[chosen.to(held.device)])


def reconcile(rank: RankState) -> None:
    """Average what clients hold apart (GWPF's frozen values), so that one model remains."""
    apart, change = clients_apart(rank, "reconcile")
    if apart is not None:
        anchor, books = rank.server.anchor, rank.parts.group.books
        anchor.masked_scatter_(apart, anchor[apart] - change)
        size, group = change.element_size() * change.numel(), rank.parts.group
        # all clients upload them; each rank counts a share of the clients
        clients = range(group.rank, rank.experiment.clients, group.size)
        books.upload({"reconcile": size * len(clients)})


def clients_apart(rank: RankState, kind: str) -> tuple[Tensor | None, Tensor]:
    """Return where clients may differ (bool, P; None: nowhere), and the mean anchor - local there.

    It reads one client's record at a time, so memory does not grow with the number of clients.
    """
    parts, anchor = rank.parts, rank.server.anchor
    apart = parts.policy.drifted()
    if any(transform.displaces for transform in parts.chain):
        apart = torch.ones_like(anchor, dtype=torch.bool)
    if apart is None:
        return None, anchor[:0]
    change, shares = torch.zeros_like(anchor), rank.clients.shares
    for client, record in rank.store.mine():
        moves = [parts.policy.displacement(anchor, record.get("policy", {}))]
        for at, transform in enumerate(parts.chain):
            moves.append(transform.displacement(record.get(f"transform{at}", {})))
        for displacement in moves:
            if displacement is not None:
                change.add_(displacement, alpha=shares[client])
    change = change[apart]
    parts.group.all_reduce(change, {kind: len(change)}).wait()
    return apart, change
