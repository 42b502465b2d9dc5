"""Full gradients at the agreed model, exchanged before clients train.

This happens only if the algorithm needs them, or if this round's alignment is measured. What an
algorithm does with them is not decided here.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.engine import plan, watch
from trainer.engine.parts import RankState
from trainer.engine.turns import full_gradient
from trainer.exchange.message import Cohort, Message, Places, Terms, Vector
from trainer.exchange.reductions.all_reduce import AllReduce
from trainer.exchange.reductions.reduction import Handle

# used once: a part that is left out or lost in coding is not sent later
GRADIENT = Vector("gradient", leftover="lost")


@dataclass(frozen=True)
class Alignment:
    """Distance of the clients' full gradients G_i from their mean G in a round."""

    variance: float  # mean of ||G_i - G||^2
    norm: float  # ||G||


@dataclass(frozen=True)
class Gradients:
    """G_i of this rank's clients and their mean G over all, (P,), if the algorithm needs both."""

    own: dict[int, Tensor] = field(default_factory=dict)
    mean: Tensor | None = None
    alignment: Alignment | None = None


def exchange_full_gradients(rank: RankState, cohort: Cohort) -> Gradients:
    """Compute the full gradients, and exchange them if their mean is needed.

    A frozen coordinate is not exchanged, so it counts as 0 in G_i and in G.
    """
    parts, server = rank.parts, rank.server
    needs, settings = parts.algorithm.needs, rank.experiment.evaluation
    measured = settings.alignment and plan.evaluated(rank.experiment, server.number)
    if needs != "mean gradient" and not measured:
        return Gradients()  # a gradient that nobody else needs is computed in the client's turn
    live, own = parts.policy.live(), {}
    members = cohort.at(parts.group.rank)
    for member in members:
        with rank.clock.turn(member.client):
            own[member.client] = full_gradient(rank, member.client)
            rank.watch.look(member.client, watch.GRADIENT, [own[member.client]])
            if live is not None:
                own[member.client].mul_(live)
    with rank.clock.phase("reduce"):
        places = Places(len(server.anchor), live)
        terms = Terms(
            cohort=cohort,
            vectors=(GRADIENT,),
            size=places.size,
            seed=rank.experiment.seed,
            places=places,
            kind="values" if needs == "mean gradient" else "evaluation",
            purpose=1,
            like=server.anchor,
        )
        # what is only measured is measured exactly, whatever the codec
        reduction = parts.once if needs == "mean gradient" else AllReduce(server.anchor.dtype)
        exchange = reduction.begin(parts.group, terms)
        for member in members:
            exchange.add(Message(member, {GRADIENT.name: own[member.client]}))
        mean = Handle(exchange.finish(places, False)).wait().mean[GRADIENT.name]
        alignment = _alignment(rank, cohort, own, mean) if measured else None
    if needs != "mean gradient":
        return Gradients(alignment=alignment)
    return Gradients(own, mean, alignment)


def _alignment(rank: RankState, cohort: Cohort, own: dict[int, Tensor], mean: Tensor) -> Alignment:
    group = rank.parts.group
    far = {m.client: float(torch.dist(own[m.client], mean)) for m in cohort.at(group.rank)}
    # not far ** 2, which is an error where the product is infinite
    variance = sum(m.weight * far[m.client] * far[m.client] for m in cohort.at(group.rank))
    (variance,) = group.sum_numbers([variance], "evaluation")
    # over the model's stages, squares of norms add up
    parts = [variance, float(mean.norm()) ** 2]
    variance, square = rank.parts.line.sum_numbers(parts, "evaluation")
    return Alignment(variance, square**0.5)
