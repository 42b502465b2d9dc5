"""The federation as every rank knows it: who is in a round, for how much work, with which weight.

Nothing here is exchanged: all of it is a function of the experiment, the seed and the steps taken
so far, so ranks agree, and counters can be computed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from trainer.config.errors import ConfigError
from trainer.config.schema import Experiment
from trainer.data.sampling import Sampler, SharedSampler, WithReplacement
from trainer.engine import placement, plan
from trainer.exchange.message import Cohort, Participant
from trainer.keys import Purpose, stream


class Clients:
    """All N clients: their sizes, the order of their samples, and their progress."""

    def __init__(
        self,
        experiment: Experiment,
        parts: Sequence[Tensor],
        weight: Callable[[int], float],
        ranks: int,
        device: torch.device,
    ) -> None:
        """Take each client's samples (parts) and its weight as a function of their number."""
        self.experiment, self.ranks = experiment, ranks
        drawing = experiment.data
        kind = Sampler
        if drawing.sampling == "replacement":
            kind = WithReplacement
        elif drawing.partition.name == "shared":
            kind = SharedSampler
        shared = drawing.partition.name == "shared"
        least = min(len(part) // len(parts) if shared else len(part) for part in parts)
        if kind is SharedSampler and not least // (experiment.schedule.batch_size or max(1, least)):
            raise ConfigError(
                "schedule.batch_size",
                f"{experiment.clients} clients share {len(parts[0])} samples, which is less than "
                f"one batch each; set it to at most {least}",
            )
        self.sampler = kind(
            parts,
            batch_size=experiment.schedule.batch_size,
            seed=experiment.seed,
            reshuffle=drawing.sampling != "fixed",
            shared=shared,
            device=device,
        )
        self.sizes = self.sampler.sizes
        weights = [weight(size) for size in self.sizes]
        self.weights = weights
        self.shares = [own / sum(weights) for own in weights]  # of the whole federation
        self.taken = [0] * len(parts)  # local steps so far

    @cached_property
    def samples(self) -> Tensor:
        """All samples that clients of this rank may train on, each once, by place."""
        places: Tensor = torch.cat(list(self.sampler.parts)).unique()
        return places[places >= 0].to(self.sampler.device)  # none of those held elsewhere

    def sampled(self, number: int) -> list[int]:
        """Return the clients of round `number`, sorted."""
        experiment = self.experiment
        clients = _draw(
            list(range(experiment.clients)),
            experiment.participation,
            stream(experiment.seed, Purpose.SAMPLING, number),
        )
        return _draw(
            clients,
            1 - experiment.stragglers.unreachable,
            stream(experiment.seed, Purpose.UNREACHABLE, number),
        )

    def steps(self, client: int, number: int) -> int:
        """Return K, a client's local steps in a round: those planned, or fewer if it is slow."""
        place = plan.place(self.experiment, number)
        steps = place.steps
        if steps is None:
            assert place.phase.epochs is not None
            steps = place.phase.epochs * self.sampler.steps_per_pass(client)
        slow = self.experiment.stragglers
        if slow.slow:
            draws = stream(self.experiment.seed, Purpose.SLOW, client, number)
            late, share = torch.rand(2, generator=draws, dtype=torch.float64).tolist()
            if late < slow.slow:
                steps = max(1, int(steps * (slow.least + (1 - slow.least) * share)))
        return steps

    def cohort(self, number: int, home: Mapping[int, int]) -> Cohort:
        """Return who takes part in a round, and where; home: the rank with a client's memory."""
        sampled = self.sampled(number)
        steps = {client: self.steps(client, number) for client in sampled}
        samples = {c: self.sampler.samples(c, self.taken[c], steps[c]) for c in sampled}
        if self.experiment.placement == "fixed":
            ranks = placement.fixed(samples, self.ranks)
        else:
            ranks = placement.deal(samples, self.ranks, home)
        total = sum(self.weights[client] for client in sampled)
        return Cohort(
            number,
            tuple(
                Participant(
                    client=client,
                    rank=ranks[client],
                    weight=self.weights[client] / total,
                    steps=steps[client],
                    samples=samples[client],
                    everyone=1 / len(self.sizes),
                )
                for client in sampled
            ),
        )

    def advance(self, cohort: Cohort) -> None:
        """Count the steps of a round that is over."""
        for member in cohort.members:
            self.taken[member.client] += member.steps
            if self.experiment.data.restart:  # round up, so that the next turn begins a new pass
                per_pass = self.sampler.steps_per_pass(member.client)
                self.taken[member.client] = -(-self.taken[member.client] // per_pass) * per_pass


def _draw(clients: list[int], share: float, draws: torch.Generator) -> list[int]:
    """Draw this share of the clients (at least one) without replacement; return them sorted."""
    count = max(1, round(share * len(clients)))
    if count == len(clients):
        return clients
    chosen = torch.randperm(len(clients), generator=draws)[:count]
    return sorted(clients[place] for place in chosen.tolist())
