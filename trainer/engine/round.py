"""Owns one round: the order in which clients, algorithm, policy and exchange take their turns."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainer.algorithms.base import Algorithm, Round
from trainer.config.schema import Experiment
from trainer.data.batches import augment
from trainer.engine.clients import Clients, ClientState
from trainer.flat import Flat
from trainer.metrics.catalog import PHASES
from trainer.parallel.single import SingleDevice
from trainer.sync.codec import Codec
from trainer.sync.comm import Comm
from trainer.sync.exchange import Exchange
from trainer.sync.policy import Electorate, Policy, Selection
from trainer.sync.tally import Tally


@dataclass
class Clock:
    """Seconds spent in each phase since the start of the run."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":  # or its queue's work is charged to a later phase
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    @property
    def training(self) -> float:
        """Seconds of everything but evaluation."""
        return sum(s for name, s in self.seconds.items() if name != "evaluate")


@dataclass
class Run:
    """Everything that a rank trains with, assembled by engine/build.py."""

    experiment: Experiment
    flat: Flat
    anchor: Tensor  # (P,) the agreed model, bit-identical on all ranks
    buffers: Tensor  # (B,) the agreed BatchNorm statistics
    gradient: SingleDevice
    augment: bool
    optimizer: torch.optim.Optimizer
    algorithm: Algorithm
    policy: Policy
    codec: Codec
    comm: Comm
    exchange: Exchange
    clients: Clients
    x_test: Tensor  # this rank's share of the test set
    y_test: Tensor
    clock: Clock
    tally: Tally  # of the whole run
    own: Tally  # of this rank's clients; wire bytes are counted for the whole run only
    round: Round = field(init=False)
    loss: Tensor = field(init=False)  # sum of the losses of this rank's samples, on the device
    samples: int = 0  # ... and how many samples those are, since the last evaluation

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), device=self.anchor.device)
        self.round = Round(
            number=0,
            anchor=self.anchor,
            params=self.flat.values.data,
            grads=self.flat.grads,
            scratch=torch.empty_like(self.anchor),
            optimizer=self.optimizer,
            clip_norm=self.experiment.optimizer.clip_norm,
        )
        self.dropout = any(isinstance(m, nn.Dropout) for m in self.flat.model.modules())


@dataclass(frozen=True)
class Played:
    """What a round did."""

    selection: Selection
    clients: int
    stop: bool  # some rank was asked to


def play(run: Run, number: int, stop: bool) -> Played:
    """Round `number`, from 1. `stop`: this rank was asked to; the answer says if any was."""
    clients, anchor = run.clients, run.anchor
    run.round.number = number
    sampled = clients.sampled(number)
    here = [c for c in sampled if clients.owner(c) == clients.rank]
    weights = {c: run.algorithm.weight(clients.sizes[c]) for c in sampled}
    total = sum(weights.values())

    # each client: begin, (gradient, step, after_step) x steps, update
    run.exchange.expect(run.algorithm.vectors)
    with run.clock.phase("local"):
        for client in here:
            train(run, client)
            changed = None if run.experiment.model.buffers == "local" else run.flat.buffers
            run.exchange.add(
                run.algorithm.update(run.round),
                None if changed is None else run.buffers - changed,
                weights[client] / total,
            )

    # all ranks: which coordinates, what is their mean, what does it do
    with run.clock.phase("select"):
        owners = [clients.owner(c) for c in sampled]
        electorate = Electorate(len(sampled), max(owners.count(rank) for rank in set(owners)))
        selection = run.policy.select(number, electorate, run.comm)
    with run.clock.phase("reduce"):
        mean, buffers, stop = run.exchange.mean(
            selection.mask, selection.count, run.comm, run.codec, stop
        )
    with run.clock.phase("apply"):
        before = run.round.scratch.copy_(anchor) if run.policy.partial else anchor
        run.algorithm.apply(run.round, mean)
        if selection.mask is not None:  # server momentum must not move what was not exchanged
            torch.where(selection.mask, anchor, before, out=anchor)
        if buffers.numel():  # not where clients keep their own
            run.buffers -= buffers
        run.policy.observe(before, anchor, selection, number)

    for client in sampled:
        _count(run, client, selection)
    return Played(selection, len(sampled), stop)


def train(run: Run, client: int) -> None:
    """One client's local training, from the agreed model to `run.round.params`."""
    round, state = run.round, run.clients.state(client)
    own_buffers = state.buffers if run.experiment.model.buffers == "local" else None
    round.params.copy_(run.anchor)
    run.flat.buffers.copy_(run.buffers if own_buffers is None else own_buffers)
    run.policy.enter(round.params, state.sync)
    # the optimizer works in the client's own dictionary, or in one that is thrown away
    kept = run.experiment.optimizer.state == "keep"
    run.optimizer.state[run.flat.values] = state.optimizer if kept else {}
    round.memory = state.algorithm
    round.steps = run.clients.steps(client, round.number)
    if run.augment or run.dropout:
        stream = run.clients.randomness(client, round.number)
        torch.manual_seed(stream.initial_seed())

    run.algorithm.begin(round)
    for x, y in run.clients.batches(client, round.steps):
        if run.augment:
            x = augment(x, stream)
        loss = run.gradient.gradient(x, y)
        torch.add(run.loss, loss, alpha=len(y), out=run.loss)
        run.algorithm.step(round)
        run.policy.after_step(round.params, run.anchor)
    run.policy.leave(round.params, run.anchor, state.sync, round.number)
    _keep_buffers(run, state)


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
        tally.payload["votes"] += run.policy.vote_bytes
        tally.payload["buffers"] += value * buffers * exchanged
    run.samples += samples * here
