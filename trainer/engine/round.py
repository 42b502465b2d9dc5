"""Owns one round: the order in which clients, algorithm, policy and exchange take their turns."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.data.batches import augment
from trainer.engine.clients import SURVEY, TURN, ClientState
from trainer.engine.run import Played, Run
from trainer.sync.policy import Electorate, Selection


def play(run: Run, number: int, stop: Callable[[], bool] = lambda: False) -> Played:
    """Round `number`, from 1. `stop`: was this rank asked to? The answer says if any was."""
    clients, anchor = run.clients, run.anchor
    run.round.number = number
    sampled = clients.sampled(number)
    here = [c for c in sampled if clients.owner(c) == clients.rank]
    weights = {c: run.algorithm.weight(clients.sizes[c]) for c in sampled}
    total = sum(weights.values())
    shares = {c: weights[c] / total for c in here}
    run.round.sampled = len(sampled) / run.experiment.clients
    surveyed = survey(run, here, shares)

    # each client: begin, (gradient, step, after_step) x steps, update
    run.exchange.expect(run.algorithm.vectors)
    with run.clock.phase("local"):
        for client in here:
            run.round.gradient = surveyed.pop(client, None)
            train(run, client)
            buffers = run.buffers - run.flat.buffers if run.exchange.buffers else None
            run.exchange.add(run.algorithm.update(run.round), buffers, shares[client])

    # all ranks: which coordinates, what is their mean, what does it do
    with run.clock.phase("select"):
        per_rank = Counter(clients.owner(c) for c in sampled)
        electorate = Electorate(len(sampled), max(per_rank.values()))
        selection = run.policy.select(number, electorate, run.comm)
    with run.clock.phase("reduce"):
        mean, changed, stopping = run.exchange.mean(
            selection.mask, selection.count, run.comm, run.codec, stop()
        )
    with run.clock.phase("apply"):
        before = run.round.scratch.copy_(anchor) if run.policy.partial else anchor
        run.algorithm.apply(run.round, mean)
        if selection.mask is not None:  # server momentum must not move what was not exchanged
            torch.where(selection.mask, anchor, before, out=anchor)
        if changed.numel():  # not where clients keep their own
            run.buffers -= changed
        run.policy.observe(before, anchor, selection, number)

    for client in sampled:
        _count(run, client, selection)
    return Played(selection, len(sampled), stopping)


def survey(run: Run, here: list[int], weights: dict[int, float]) -> dict[int, Tensor]:
    """Each client's whole gradient at the agreed model; their mean goes to `run.round`.

    Only where the algorithm asks. A frozen coordinate is not exchanged, so it counts as 0 in both.
    """
    needs, round = run.algorithm.needs, run.round
    if needs == "nothing":
        return {}
    live = run.policy.live()
    with run.clock.phase("local"):
        gradients = {client: whole_gradient(run, client) for client in here}
        if live is not None:
            for gradient in gradients.values():
                gradient.mul_(live)
    if needs == "mean gradient":
        with run.clock.phase("reduce"):
            run.survey.expect(("gradient",))
            for client in here:
                run.survey.add({"gradient": gradients[client]}, None, weights[client])
            count = run.flat.size if live is None else int(live.count_nonzero())
            mean, _, _ = run.survey.mean(live, count, run.comm, run.codec, stop=False)
            round.mean_gradient = mean["gradient"]
    return gradients


def whole_gradient(run: Run, client: int) -> Tensor:
    """G_i (P,): the mean gradient over the client's samples, or over about as many as the cap."""
    _load(run, run.clients.state(client))
    total, seen = torch.zeros_like(run.anchor), 0
    if run.augment or run.dropout:
        stream = run.clients.randomness(client, run.round.number, SURVEY)
        torch.manual_seed(stream.initial_seed())
    for x, y in run.clients.whole(client, run.algorithm.gradient_samples):
        run.gradient.gradient(augment(x, stream) if run.augment else x, y)
        total.add_(run.round.grads, alpha=len(y))
        seen += len(y)
    return total.div_(seen)


def train(run: Run, client: int) -> None:
    """One client's local training, from the agreed model to `run.round.params`."""
    round, state = run.round, run.clients.state(client)
    _load(run, state)
    run.policy.enter(round.params, round.scratch, state.sync)
    # the optimizer works in the client's own dictionary, or in one that is thrown away
    kept = run.experiment.optimizer.state == "keep"
    run.optimizer.state[run.flat.values] = state.optimizer if kept else {}
    round.memory = state.algorithm
    round.steps = run.clients.steps(client, round.number)
    if run.augment or run.dropout:
        stream = run.clients.randomness(client, round.number, TURN)
        torch.manual_seed(stream.initial_seed())

    run.algorithm.begin(round)
    for x, y in run.clients.batches(client, round.steps):
        if run.augment:
            x = augment(x, stream)
        loss = run.gradient.gradient(x, y)
        torch.add(run.loss, loss, alpha=len(y), out=run.loss)
        round.batch = len(y)
        run.algorithm.step(round)
        run.policy.after_step(round.params, run.anchor)
    run.policy.leave(round.params, run.anchor, state.sync, round.number)
    _keep_buffers(run, state)


def _load(run: Run, state: ClientState) -> None:
    """The agreed model into the network, with the client's own buffers where it keeps them."""
    own_buffers = state.buffers if run.experiment.model.buffers == "local" else None
    run.round.params.copy_(run.anchor)
    run.flat.buffers.copy_(run.buffers if own_buffers is None else own_buffers)


def _keep_buffers(run: Run, state: ClientState) -> None:
    if run.experiment.model.buffers == "local" and run.flat.buffers.numel():
        state.buffers = run.flat.buffers.clone()


def _count(run: Run, client: int, selection: Selection) -> None:
    """Add what one client did and had to upload to the run's tally, and to its rank's."""
    clients, buffers, value = run.clients, run.buffers.numel(), run.codec.value_bytes
    exchanged = run.experiment.model.buffers == "mean"
    steps = clients.steps(client, run.round.number)
    samples = clients.count(client, steps)
    here = clients.owner(client) == clients.rank
    for tally in (run.tally, run.own) if here else (run.tally,):
        tally.steps += steps
        tally.samples += samples
        tally.dense += 4 * (run.flat.size + buffers)
        tally.payload["values"] += len(run.algorithm.vectors) * value * selection.count
        if run.algorithm.needs == "mean gradient":
            tally.payload["values"] += value * (run.flat.size - selection.labelled)
        tally.payload["votes"] += run.policy.vote_bytes
        tally.payload["buffers"] += value * buffers * exchanged
    run.samples += samples * here
