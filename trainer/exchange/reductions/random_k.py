"""The reduction by random choice: in each round the same few coordinates of all clients travel.

All ranks draw them from the seed, so no index travels (Konecny et al. 2016, random masks; error
feedback: Stich et al., NeurIPS 2018). Symbols: n = the values that the round's mask lets travel;
k = ceil(share n). The n are cut into k runs as even as possible, and one coordinate of each run
travels: every one has a chance of at least 1 / ceil(n / k), no tensor goes without, and nothing
has to be sorted. So the expected loss is |x|^2 (1 - 1 / ceil(n / k)) at most. What is not sent
stays with its client, by error feedback.

How the chosen values are coded and added up is another reduction's business.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from trainer.exchange.group import Group
from trainer.exchange.lanes import Poll
from trainer.exchange.message import Message, Places, Terms
from trainer.exchange.reductions.reduction import Exchange, Reduction, Steps
from trainer.keys import Purpose, stream


class RandomK(Reduction):
    """A share of the values that may travel, chosen anew each round; the others do not."""

    def __init__(self, inner: Reduction, share: float) -> None:
        self.inner, self.share = inner, share

    def begin(self, group: Group, terms: Terms) -> "Chosen":
        assert terms.places is not None, "values are chosen of those that travel"
        chosen = self.choose(terms.places, terms)
        return Chosen(self.inner.begin(group, replace(terms, places=chosen)), terms, chosen)

    def choose(self, places: Places, terms: Terms) -> Places:
        """Return the round's choice among places; every rank, whatever its device, has the same."""
        number, device = terms.cohort.number, terms.like.device
        draws = stream(terms.seed, Purpose.CHOICE, number, terms.purpose)
        index = one_of_each_run(places.count, ceil(self.share * places.count), draws).to(device)
        if places.mask is not None:
            index = places.index[index]
        mask = torch.zeros(places.size, dtype=torch.bool, device=device)
        return Places(places.size, mask.index_fill_(0, index, True), len(index))


def one_of_each_run(count: int, runs: int, draws: torch.Generator) -> Tensor:
    """Return one random number of each of `runs` even runs of 0 to count - 1, sorted, int64."""
    if runs == 0:
        return torch.zeros(0, dtype=torch.int64)
    edges = torch.arange(runs + 1) * count // runs
    lengths = edges.diff()
    return edges[:-1] + torch.randint(2**62, (runs,), generator=draws) % lengths


class Chosen(Exchange):
    """The messages of this rank's clients, without the values that are not chosen."""

    def __init__(self, inner: Exchange, terms: Terms, chosen: Places) -> None:
        self.inner, self.terms, self.chosen = inner, terms, chosen

    def add(self, message: Message) -> Mapping[str, Tensor] | None:
        assert self.chosen.mask is not None
        vectors = dict(message.vectors)
        for vector in self.terms.vectors:
            if not vector.exact:
                vectors[vector.name] = vectors[vector.name] * self.chosen.mask
        return self.inner.add(Message(message.sender, vectors))

    def finish(self, places: Places, stop: bool, poll: Poll | None = None) -> Steps:
        delivery = yield from self.inner.finish(self.chosen, stop, poll)
        # Not the choice: a coordinate that was not chosen is not frozen, and the server's momentum
        # moves it too.
        return replace(delivery, places=places)
