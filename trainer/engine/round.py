"""One round: the order in which clients, algorithm, policy, transforms and exchange take part.

The steps themselves are in those parts; evaluation and checkpoints are in the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.engine import agreement, plan
from trainer.engine.gradients import Alignment, exchange_full_gradients
from trainer.engine.outbox import Outbox
from trainer.engine.parts import RankState
from trainer.engine.turns import train
from trainer.exchange.message import BUFFERS, Cohort, Delivery, Places


@dataclass(frozen=True)
class RoundResult:
    """The result of a round, places being those of this rank's part of the model.

    Of the whole model: sent, how many of its parameters were exchanged, labelled, how many the
    policy called frozen, and thawed, how many of these were exchanged.
    """

    places: Places
    sent: int
    labelled: int = 0
    thawed: int = 0
    clients: int = 0
    stop: bool = False  # whether any rank was asked to stop
    alignment: Alignment | None = None  # None: not measured


def run_round(
    rank: RankState, number: int, stop: Callable[[], bool] = lambda: False
) -> RoundResult:
    """Run round `number` (from 1) on this rank.

    `stop` returns whether this rank was asked to stop; the result contains whether any rank was.
    """
    _begin(rank, number)
    cohort = rank.clients.cohort(number, rank.store.home)  # who, how much, on which rank
    rank.store.fetch(cohort)
    gradients = exchange_full_gradients(rank, cohort)
    outbox = Outbox(rank, cohort)
    for member in cohort.at(rank.parts.group.rank):
        with rank.clock.turn(member.client):
            own = gradients.own.pop(member.client, None)
            outbox.offer(*train(rank, member, own, gradients.mean))
        rank.store.trim()
    labelled = rank.parts.policy.labelled
    with rank.clock.phase("select"):
        places = outbox.select()
    with rank.clock.phase("reduce"):
        senders, exchange = outbox.close(places, stop())
        delivery = exchange.wait()
        outbox.settle(delivery)
    with rank.clock.phase("apply"):
        _apply(rank, senders, delivery)
        rank.watch.close(rank.server)
        agreement.note(rank, delivery.places)
    _end(rank, cohort)
    return _result(rank, labelled, cohort, delivery, gradients.alignment)


def _result(
    rank: RankState,
    labelled: int,
    cohort: Cohort,
    delivery: Delivery,
    alignment: Alignment | None,
) -> RoundResult:
    """Add up what concerns the whole model, over its stages.

    A delivery says whether any rank of the same stage was asked to stop, so the line says whether
    any rank at all was: it has a rank of each stage.
    """
    places = delivery.places
    own = [float(delivery.stop), places.count, labelled, places.thawed(labelled)]
    stop, sent, labelled, thawed = map(int, rank.parts.line.sum_numbers(own, "control"))
    return RoundResult(places, sent, labelled, thawed, len(cohort.members), bool(stop), alignment)


def _begin(rank: RankState, number: int) -> None:
    server = rank.server
    server.number = number
    server.lr = plan.lr(rank.experiment, number)
    server.lr_scale = plan.lr_scale(rank.experiment, number)
    rank.clock.begin_round()
    rank.watch.begin(rank.loss.sum)


def _apply(rank: RankState, senders: Cohort, delivery: Delivery) -> None:
    """Apply the means to the agreed state, in the same way on every rank."""
    server, parts, mask = rank.server, rank.parts, delivery.places.mask
    watched = [transform for transform in parts.chain if transform.watches]
    before = server.anchor
    if mask is not None or parts.policy.watches or watched:
        before = server.anchor.clone()
    paused = {}
    if mask is not None and parts.policy.pauses:
        paused = {name: v.clone() for name, v in server.state.items() if v.dim()}
    if senders.members:
        parts.algorithm.apply(server, delivery.mean)
        if BUFFERS.name in delivery.mean:  # absent if clients keep their own
            server.buffers -= delivery.mean[BUFFERS.name]
    if mask is not None:  # a momentum must not move coordinates that were not exchanged
        torch.where(mask, server.anchor, before, out=server.anchor)
        for name, was in paused.items():
            torch.where(mask, server.state[name], was, out=server.state[name])
    if before is not server.anchor:
        change = before.sub_(server.anchor)
        for transform in watched:
            transform.applied(change, parts.worker.total)
        if delivery.decided is not None:
            parts.policy.decided(delivery.decided)
        parts.policy.applied(change, server, delivery.places)


def _end(rank: RankState, cohort: Cohort) -> None:
    """Count the round, and record how long it took."""
    rank.clients.advance(cohort)
    whole = rank.parts.worker.whole
    values = whole.parameters + whole.buffers
    exchanges = rank.parts.reduction.trips + (rank.parts.algorithm.needs == "mean gradient")
    messages = 2 * exchanges  # up and down
    rank.ledger.round(cohort, values, messages)
    rank.ledger.wrong = not rank.watch.finite
    rank.ledger.time(list(rank.clock.turns.values()), rank.clock.since_begin("apply"))
    rank.ledger.passes = rank.parts.worker.passes()
