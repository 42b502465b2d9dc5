"""One client's turn: local training from the agreed model, and its full gradient there.

Nothing is exchanged here; a turn ends with the message that the client would send.
"""

import torch
from torch import Tensor

from trainer.engine import arrival, nodes, plan
from trainer.engine.parts import RankState
from trainer.exchange.message import BUFFERS, Message, Participant
from trainer.keys import Purpose, stream
from trainer.turn import Turn


def enter(rank: RankState, client: int) -> None:
    """Load the agreed model into the network, with the client's own buffers if it keeps them."""
    buffers = rank.server.buffers
    if rank.keeps_buffers:
        buffers = rank.store.memory(client, "buffers").get("buffers", buffers)
    rank.parts.worker.enter(rank.server.anchor, buffers)


def train(
    rank: RankState, member: Participant, gradient: Tensor | None, mean_gradient: Tensor | None
) -> tuple[Message, Tensor | None]:
    """Train one client; return its message, and its vote on the places, if it has one.

    gradient, mean_gradient: G_i and G, if the algorithm needs both.
    """
    parts, server, client = rank.parts, rank.server, member.client
    worker, algorithm, policy = parts.worker, parts.algorithm, parts.policy
    if algorithm.needs == "gradient":
        gradient = full_gradient(rank, client)
    enter(rank, client)
    turn = Turn(
        client=client,
        server=server,
        params=worker.params,
        grads=worker.grads,
        memory=rank.store.memory(client, "algorithm") if algorithm.keeps else {},
        total=worker.total,
        steps=member.steps,
        gradient=gradient,
        mean_gradient=mean_gradient,
    )
    memory = rank.store.memory(client, "policy") if policy.keeps else {}
    policy.entering(turn, memory)
    for at, transform in enumerate(parts.chain):
        if transform.keeps:
            transform.entering(turn, rank.store.memory(client, f"transform{at}"))
    rates = plan.rates(rank.experiment, server.number, member.steps)
    turn.mean_lr = sum(rates) / len(rates)
    draws = _draws(rank, client, Purpose.TURN)

    algorithm.begin(turn)
    first = rank.clients.taken[client]
    places = (rank.clients.sampler.places(client, first + k) for k in range(member.steps))
    arrival.begins(rank)
    batches = zip(rates, parts.task.batches(places, draws), strict=True)
    for taken, (lr, (x, y, units)) in enumerate(batches, 1):
        turn.lr, turn.batch = lr, units
        rank.loss.add(worker.gradient(x, y), turn.batch)
        algorithm.step(turn)
        policy.stepped(turn)
        arrival.stepped(rank, turn.params, taken, last=taken == member.steps)
        nodes.stepped(rank, turn.params, taken, last=taken == member.steps)
    ballot = policy.leaving(turn, memory)
    return _offer(rank, member, turn), ballot


def _offer(rank: RankState, member: Participant, turn: Turn) -> Message:
    """Return the client's message, with the change of its BatchNorm statistics if they travel."""
    vectors = rank.parts.algorithm.update(turn)
    worker = rank.parts.worker
    if rank.keeps_buffers:
        kept = rank.store.memory(member.client, "buffers")
        kept["buffers"] = worker.buffers.clone()
    elif len(worker.buffers):
        vectors[BUFFERS.name] = rank.server.buffers - worker.buffers
    return Message(member, vectors)


def full_gradient(rank: RankState, client: int) -> Tensor:
    """Return G_i (P,), the mean gradient over the client's samples, or about as many as the cap."""
    enter(rank, client)
    parts, sampler = rank.parts, rank.clients.sampler
    total, seen = torch.zeros_like(rank.server.anchor), 0
    draws = _draws(rank, client, Purpose.FULL_GRADIENT)
    samples, size = sampler.every(client), sampler.batch_size(client)
    if (cap := parts.algorithm.gradient_samples) is not None:
        samples = samples[: -(-cap // size) * size]
    for x, y, units in parts.task.batches(samples.split(size), draws):
        parts.worker.gradient(x, y)
        total.add_(parts.worker.grads, alpha=units)
        seen += units
    return total.div_(seen)


def _draws(rank: RankState, client: int, purpose: Purpose) -> torch.Generator | None:
    """Return the random stream of a client's turn, if it needs one, and seed dropout with it."""
    if not rank.parts.worker.random:
        return None
    seed, number, place = rank.experiment.seed, rank.server.number, rank.parts.worker.place
    draws = stream(seed, purpose, client, number)
    own = stream(seed, Purpose.DROPOUT, purpose, client, number, place) if place else draws
    torch.manual_seed(own.initial_seed())
    return draws
