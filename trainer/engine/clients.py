"""Owns the federation as one rank sees it: who is sampled, whose data is here, what each one keeps.

Client c lives on rank c mod W, so its state never moves. Randomness is a pure function of
(seed, purpose, client, round): no generator has a state that a checkpoint would have to hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.config.schema import Experiment
from trainer.data.batches import Position, Sampler, generator
from trainer.data.load import Dataset
from trainer.data.partition import partition

SAMPLING, TURN, SURVEY = 101, 102, 103  # purposes that key the random streams


@dataclass
class ClientState:
    """What one client keeps between rounds; empty until it first trains."""

    position: Position = field(default_factory=Position)
    sync: dict[str, Any] = field(default_factory=dict)
    algorithm: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    buffers: Tensor | None = None


class Clients:
    """The clients of this rank with their samples, and the sizes of all of them."""

    def __init__(
        self, experiment: Experiment, data: Dataset, rank: int, ranks: int, device: torch.device
    ) -> None:
        self.experiment, self.rank, self.ranks = experiment, rank, ranks
        parts = partition(
            experiment.data.partition, data.y_train.numpy(), experiment.clients, experiment.seed
        )
        self.sizes = [len(part) for part in parts]
        here = {c: torch.from_numpy(parts[c]) for c in range(rank, experiment.clients, ranks)}
        # only this rank's samples stay in memory, each once, even where clients share them
        kept, places = torch.unique(torch.cat(list(here.values())), return_inverse=True)
        self.x, self.y = data.x_train[kept].to(device), data.y_train[kept].to(device)
        own = places.to(device).split([len(part) for part in here.values()])
        self.samplers: dict[int, Sampler] = {}
        for client, indices in zip(here, own, strict=True):
            self.samplers[client] = Sampler(
                indices,
                batch_size=experiment.schedule.batch_size,
                seed=experiment.seed,
                client=client,
                reshuffle=experiment.data.reshuffle,
            )
        self.states: dict[int, ClientState] = {}
        self.taken: dict[int, int] = {}  # local steps so far, of every client of every rank

    def sampled(self, round_number: int) -> list[int]:
        """The clients of a round, sorted; the same on every rank."""
        total = self.experiment.clients
        count = max(1, round(self.experiment.participation * total))
        if count == total:
            return list(range(total))
        stream = generator(self.experiment.seed, SAMPLING, round_number)
        return sorted(torch.randperm(total, generator=stream)[:count].tolist())

    def owner(self, client: int) -> int:
        """The rank that a client lives on."""
        return client % self.ranks

    def state(self, client: int) -> ClientState:
        return self.states.setdefault(client, ClientState())

    def steps(self, client: int, round_number: int) -> int:
        """K: local steps of a client in a round, by the schedule's phase."""
        phase = self.experiment.schedule.phase(round_number)
        if phase.steps is not None:
            return phase.steps
        assert phase.epochs is not None
        return phase.epochs * -(-self.sizes[client] // self.experiment.schedule.batch_size)

    def count(self, client: int, steps: int) -> int:
        """Note that a client of any rank takes `steps` more; returns how many samples that is."""
        before = self.taken.get(client, 0)
        self.taken[client] = before + steps
        return self._samples(client, before + steps) - self._samples(client, before)

    def _samples(self, client: int, steps: int) -> int:
        size, batch = self.sizes[client], self.experiment.schedule.batch_size
        passes, rest = divmod(steps, -(-size // batch))
        return passes * size + min(rest * batch, size)

    def batches(self, client: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The client's next batches: integers (B, C, H, W) and labels (B,)."""
        position = self.state(client).position
        for _ in range(steps):
            indices = self.samplers[client].next_batch(position)
            yield self.x[indices], self.y[indices]

    def whole(self, client: int, cap: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """All of the client's samples in batches, in a fixed order; ends once `cap` were seen."""
        seen = 0
        for indices in self.samplers[client].indices.split(self.experiment.schedule.batch_size):
            yield self.x[indices], self.y[indices]
            seen += len(indices)
            if cap is not None and seen >= cap:
                return

    def randomness(self, client: int, round_number: int, purpose: int) -> torch.Generator:
        """The stream of one client's turn: its augmentation; its dropout is seeded from it."""
        return generator(self.experiment.seed, purpose, client, round_number)
