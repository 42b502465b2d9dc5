"""One round: the order in which clients, algorithm, policy, transforms and exchange take part.

The steps themselves are in those parts; evaluation and checkpoints are in the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass

from trainer.engine import agreement, plan
from trainer.engine.apply import apply
from trainer.engine.gradients import Alignment, exchange_full_gradients
from trainer.engine.outbox import Outbox
from trainer.engine.parts import RankState
from trainer.engine.turns import train
from trainer.exchange.message import Cohort, Places


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
        with rank.pace.sending(rank.parts.group):
            senders, exchange = outbox.close(places, stop())
            rank.parts.policy.departed(number)
            if rank.overlap is None:
                delivery = exchange.wait()
        if rank.overlap is None:
            outbox.settle(delivery)
            places, stopping = delivery.places, delivery.stop
            buffers = 0 if rank.keeps_buffers else len(rank.server.buffers)
            values = delivery.places.count * len(outbox.named) + buffers
            rank.pace.exchanged(exchange, values, rank.parts.group.size)
        else:
            stopping = rank.overlap.depart(exchange)
    with rank.clock.phase("apply"):
        if rank.overlap is None:
            apply(rank, delivery, sent=bool(senders.members))
        rank.watch.close(rank.server)
        agreement.note(rank, places)
    _end(rank, cohort)
    return _result(rank, labelled, cohort, places, stopping, gradients.alignment)


def _result(
    rank: RankState,
    labelled: int,
    cohort: Cohort,
    places: Places,
    stop: bool,
    alignment: Alignment | None,
) -> RoundResult:
    """Add up what concerns the whole model, over its stages.

    A delivery says whether any rank of the same stage was asked to stop, so the line says whether
    any rank at all was: it has a rank of each stage.
    """
    own = [float(stop), places.count, labelled, places.thawed(labelled)]
    stopping, sent, labelled, thawed = map(int, rank.parts.line.sum_numbers(own, "control"))
    clients = len(cohort.members)
    return RoundResult(places, sent, labelled, thawed, clients, bool(stopping), alignment)


def _begin(rank: RankState, number: int) -> None:
    server = rank.server
    server.number = number
    server.lr = plan.lr(rank.experiment, number)
    server.lr_scale = plan.place(rank.experiment, number).factor(0)
    rank.clock.begin_round()
    rank.watch.begin(rank.loss.sum)


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
