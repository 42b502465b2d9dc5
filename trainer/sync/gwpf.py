"""Owns Gradient-Wise Parameter Freezing (Computer Networks 255, 2024) as the paper means it.

Symbols: T = threshold, T_thaw = thaw_threshold, q = quorum, E and Ea = DriftRatio, F = frozen,
b_k = a client's votes, v = votes. The paper leaves several choices open; ours are:

- a client's statistic runs since the freeze, not over one round: |displacement| / distance, which
  is |sum d| / sum |d| over its local steps. Displacement needs no memory, it is anchor - local;
- a thawed coordinate is active again: it is averaged, feeds E and Ea, and is judged like any other;
- a frozen period ends after max_frozen_rounds at the latest, so staleness is bounded;
- T is halved once each time the frozen share rises above tighten_at, and never below a floor.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import GWPF as Settings
from trainer.sync.comm import Comm
from trainer.sync.drift import DriftRatio
from trainer.sync.policy import Electorate, Memory, Policy, Selection


class GWPF(Policy):
    """Frozen coordinates train on at each client and stay out of the mean until clients vote.

    Extra memory in model lengths: E, Ea, travel, and a half for age; per client, its frozen
    coordinates twice.
    """

    partial = True

    def __init__(self, settings: Settings, size: int, device: torch.device) -> None:
        self.settings, self.size = settings, size
        self.threshold = settings.threshold
        self.ratio = DriftRatio(size, settings.ema, device)
        self.frozen = torch.zeros(size, dtype=torch.bool, device=device)
        self.age = torch.zeros(size, dtype=torch.int16, device=device)  # rounds it was left out
        self.frozen_count = 0
        self.rounds = 0  # that have ended
        self.crowded = False  # was the frozen share above tighten_at?
        # one client's, while it trains:
        self.travel = torch.zeros(size, device=device)  # sum of |step| since the freeze
        self.previous = self.travel  # params before the step: the engine's scratch, from `enter`
        # this round's, over the clients of this rank:
        self.votes = torch.zeros(0, dtype=torch.int16, device=device)

    # ------------------------------------------------------------------ at each client

    def enter(self, params: Tensor, scratch: Tensor, memory: Memory) -> None:
        if not self.frozen_count:
            return
        self.previous = scratch
        self.travel.zero_()
        if memory:
            # a coordinate that thawed since then starts anew from the agreed value
            still = self._still_frozen(memory)
            self.previous.copy_(params).masked_scatter_(memory["mask"], memory["local"])
            torch.where(still, self.previous, params, out=params)
            self.travel.masked_scatter_(memory["mask"], memory["travel"]).mul_(still)
        self.previous.copy_(params)

    def after_step(self, params: Tensor, anchor: Tensor) -> None:
        if self.frozen_count:  # active coordinates are added too: cheaper than leaving them out
            self.travel.add_(self.previous.sub_(params).abs_())
            self.previous.copy_(params)

    def leave(self, params: Tensor, anchor: Tensor, memory: Memory, round_number: int) -> None:
        if not self.frozen_count:
            memory.clear()
            return
        local = params.masked_select(self.frozen)
        travel = self.travel.masked_select(self.frozen)
        displacement = anchor.masked_select(self.frozen).sub_(local).abs_()
        vote = (displacement >= self.settings.thaw_threshold * travel) & (travel > 0)
        if not self.votes.numel():
            self.votes = torch.zeros(self.frozen_count, dtype=torch.int16, device=params.device)
        self.votes += vote
        memory.update(mask=self.frozen, local=local, travel=travel, round=round_number)

    def _still_frozen(self, memory: Memory) -> Tensor:
        """Frozen now and, without a break, since before the round that the memory is of."""
        away = self.rounds - int(memory["round"])  # rounds that have ended since then, beside it
        kept: Tensor = self.frozen & memory["mask"] & (self.age > away)
        return kept

    def displacement(self, anchor: Tensor, memory: Memory) -> Tensor | None:
        if not memory or not self.frozen_count:
            return None
        local = anchor.clone().masked_scatter_(memory["mask"], memory["local"])
        return (anchor - local).mul_(self._still_frozen(memory))

    def drifted(self) -> Tensor | None:
        return self.frozen if self.frozen_count else None

    # ------------------------------------------------------------------ on every rank alike

    def live(self) -> Tensor | None:
        return ~self.frozen if self.frozen_count else None

    def select(self, round_number: int, electorate: Electorate, comm: Comm) -> Selection:
        self.vote_bytes = -(-self.frozen_count // 8)
        if not self.frozen_count:
            return Selection(None, self.size)
        votes = self.votes
        if not votes.numel():  # no client of this rank was sampled
            votes = torch.zeros(self.frozen_count, dtype=torch.int16, device=self.frozen.device)
        quorum = max(1, ceil(self.settings.quorum * electorate.clients - 1e-9))
        thaw = comm.decide(votes, most=electorate.most, quorum=quorum)
        thaw |= self.age.masked_select(self.frozen) + 1 >= self.settings.max_frozen_rounds
        self.votes = self.votes[:0]
        mask = ~self.frozen
        mask.masked_scatter_(self.frozen, thaw)
        thawed = int(thaw.sum())
        count = self.size - self.frozen_count + thawed
        return Selection(mask, count, thawed, labelled=self.frozen_count)

    def observe(
        self, before: Tensor, anchor: Tensor, selection: Selection, round_number: int
    ) -> None:
        self.rounds = round_number
        self.ratio.update(before.sub_(anchor), selection.mask)
        freeze = self.ratio.below(self.threshold)
        if selection.mask is None:
            self.frozen = freeze
        else:
            freeze &= selection.mask
            self.frozen = (self.frozen & ~selection.mask) | freeze
        self.age.add_(self.frozen).masked_fill_(freeze | ~self.frozen, 0)
        self.frozen_count = int(self.frozen.sum())
        crowded = self.frozen_count > self.settings.tighten_at * self.size
        if crowded and not self.crowded:
            self.threshold = max(self.threshold / 2, self.settings.threshold_floor)
        self.crowded = crowded

    def state(self) -> Memory:
        return {
            "threshold": self.threshold,
            "signed": self.ratio.signed,
            "absolute": self.ratio.absolute,
            "frozen": self.frozen,
            "age": self.age,
            "rounds": self.rounds,
            "crowded": self.crowded,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.threshold, self.crowded = state["threshold"], state["crowded"]
        self.ratio.signed, self.ratio.absolute = state["signed"], state["absolute"]
        self.frozen, self.age = state["frozen"], state["age"]
        self.rounds = state["rounds"]
        self.frozen_count = int(self.frozen.sum())
