"""Gradient-Wise Parameter Freezing (Computer Networks 255, 2024) as described in the paper.

The rule of its published code is in gwpf_released.py. Symbols: T = threshold, T_thaw =
thaw_threshold, q = quorum, E and Ea = DriftRatio, F = frozen, b_k = a client's votes, v = votes.
All ranks freeze a coordinate when |E| / Ea < T. Client k votes for it when |sum d| / sum |d| >=
T_thaw over its local steps d, and it thaws when v = sum b_k >= q times the round's clients. The
paper leaves several choices open; ours are:

- a client's statistic covers all steps since the freeze, not one round. |sum d| is the displacement
  |anchor - local|, which needs no memory, and sum |d| the distance travelled. Like the drift ratio
  it is in [0, 1]: 1 if all steps have the same sign, near 0 if the coordinate only oscillates;
- a thawed coordinate is active again: it is averaged, feeds E and Ea, and is judged like any other;
- a frozen period ends after max_frozen_rounds at the latest, so staleness is bounded. With
  `stagger` each coordinate is exchanged in a round of its own of every max_frozen_rounds + 1, so
  of n frozen ones about n / (max_frozen_rounds + 1) in each, however many froze together;
- with votes=riding the votes of a round travel with its values and thaw a coordinate in the next
  round, in which it is exchanged. So the server's answer comes a round later than in the paper;
- T is halved once each time the frozen share rises above tighten_at, and never below a floor.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import GWPF as Settings
from trainer.exchange.masks import chunks, indices
from trainer.exchange.message import Places
from trainer.exchange.policies.drift import DriftRatio, halved
from trainer.exchange.policies.policy import FreezingPolicy
from trainer.exchange.policies.stagger import shifts, whole
from trainer.exchange.rows import Rows
from trainer.layout import Layout
from trainer.turn import Memory, Server, Turn


class GWPF(FreezingPolicy):
    """Frozen coordinates that keep training at each client, out of the mean until a vote.

    Extra memory in model lengths: E and Ea, a half for age, as much for `stagger`, a quarter for
    the mask, and for each client three numbers per frozen coordinate. Masks are used only once a
    round; at each client or step an index is used, which is faster by an order of magnitude.
    """

    keeps = True

    def __init__(
        self,
        settings: Settings,
        size: int,
        device: torch.device,
        seed: int = 0,
        layout: Layout | None = None,
    ) -> None:
        self.settings, self.size = settings, size
        # each coordinate's own round of every max_frozen_rounds + 1, in which it is not left out
        layout = layout or whole(size)
        self.rows = Rows(layout) if settings.unit == "row" else None
        self.turns: Tensor | None = None
        if settings.stagger:
            self.turns = shifts(layout, seed, self._cycle, device, self.rows)
        self.threshold = settings.threshold
        self.ratio = DriftRatio(size, settings.ema, device)
        self.age = torch.zeros(size, dtype=torch.int16, device=device)  # rounds in a row left out
        self.rounds = 0  # rounds that have ended
        self.crowded = False  # whether the frozen share was above tighten_at
        self.pending: Tensor | None = None  # (F,) bool, what votes that rode have thawed since
        self.freeze(torch.zeros(size, dtype=torch.bool, device=device))

    # ------------------------------------------------------------------ at each client

    def entering(self, turn: Turn, memory: Memory) -> None:
        if not self.labelled:
            return
        travel = torch.zeros_like(turn.params)
        if memory:
            # a coordinate that has thawed in between starts again from the agreed value
            still = indices(self._still_frozen(memory))
            kept = memory["index"].index_select(0, still)
            turn.params.scatter_(0, kept, memory["local"].index_select(0, still))
            travel.scatter_(0, kept, memory["travel"].index_select(0, still))
        turn.work["gwpf.travel"] = travel.index_select(0, self.index)  # (F,) sum of |d|
        turn.work["gwpf.before"] = turn.params.index_select(0, self.index)  # (F,) before a step

    def stepped(self, turn: Turn) -> None:
        if self.labelled:
            now = turn.params.index_select(0, self.index)
            turn.work["gwpf.travel"].add_(turn.work["gwpf.before"].sub_(now).abs_())
            turn.work["gwpf.before"] = now

    def leaving(self, turn: Turn, memory: Memory) -> Tensor | None:
        if not self.labelled:
            memory.clear()
            return None
        local, travel = turn.work["gwpf.before"], turn.work["gwpf.travel"]
        round_number = torch.tensor(turn.server.number)
        memory.update(index=self.index, local=local, travel=travel, round=round_number)
        displacement = turn.server.anchor.index_select(0, self.index).sub_(local).abs_()
        if self.rows is not None:
            displacement, travel = self._by_row(displacement), self._by_row(travel)
        # the ratio without a division; a coordinate that never moved has no reason to thaw
        return (displacement >= self.settings.thaw_threshold * travel) & (travel > 0)

    def _by_row(self, values: Tensor) -> Tensor:
        """Return the sums over the frozen rows, (items,), of values (F,)."""
        assert self.rows is not None
        dense = values.new_zeros(self.size).scatter_(0, self.index, values)
        return self.rows.sums(dense).index_select(0, self.units)

    def _of_coordinates(self, decided: Tensor) -> Tensor:
        """Return what was decided on items (items,) for each frozen coordinate, bool (F,)."""
        if self.rows is None:
            return decided
        own = decided.new_zeros(self.rows.count).scatter_(0, self.units, decided)
        return self.rows.spread(own).index_select(0, self.index)

    def _still_frozen(self, memory: Memory) -> Tensor:
        """Return which of the client's kept coordinates (bool, F then) were never thawed since.

        The age of such a coordinate counts the round in which the client kept it, if the exchange
        left it out, and all rounds that ended after that one. So it is larger than their number; a
        coordinate that was exchanged in between started again at 0.
        """
        away = self.rounds - int(memory["round"])  # rounds that have ended after that one
        index = memory["index"]
        kept: Tensor = self.frozen.index_select(0, index) & (self.age.index_select(0, index) > away)
        return kept

    def displacement(self, anchor: Tensor, memory: Memory) -> Tensor | None:
        if not memory or not self.labelled:
            return None
        index = memory["index"]
        apart = (anchor.index_select(0, index) - memory["local"]).mul_(self._still_frozen(memory))
        return torch.zeros_like(anchor).scatter_(0, index, apart)

    def drifted(self) -> Tensor | None:
        return self.frozen if self.labelled else None

    # ------------------------------------------------------------------ on every rank alike

    @property
    def voting(self) -> bool:
        return self.labelled > 0 and self.settings.votes == "before"

    @property
    def polling(self) -> bool:
        return self.labelled > 0 and self.settings.votes == "riding"

    def quorum(self, voters: int) -> int:
        # less a little, since in floating point 0.07 * 100 is just above 7
        return max(1, ceil(self.settings.quorum * voters - 1e-9))

    def ballot_bytes(self) -> int:
        return -(-self.items // 8)  # one bit for each

    def select(self, decided: Tensor | None) -> Places:
        if not self.labelled:
            return Places(self.size)
        votes = self.pending if decided is None else self._of_coordinates(decided)
        thaw = self._overdue() if votes is None else votes | self._overdue()
        mask = (~self.frozen).scatter_(0, self.index, thaw)
        return Places(self.size, mask, self.size - self.labelled + int(thaw.count_nonzero()))

    def decided(self, outcome: Tensor) -> None:
        self.pending = self._of_coordinates(outcome)

    def _overdue(self) -> Tensor:
        """Return which frozen coordinates (bool, F) are not left out of the coming round."""
        if self.turns is not None:
            # where the cycle begins is a convention; self.rounds + 1 is the coming round
            due: Tensor = self.turns.index_select(0, self.index) == (self.rounds + 1) % self._cycle
            return due
        overdue: Tensor = self.age.index_select(0, self.index) >= self.settings.max_frozen_rounds
        return overdue

    @property
    def _cycle(self) -> int:
        """Rounds from one end of a longest frozen period to the next one's, if it freezes again."""
        return self.settings.max_frozen_rounds + 1

    def decisive(self) -> Sequence[Tensor]:
        held = [self.frozen, self._overdue()]
        return held if self.pending is None else [*held, self.pending]

    def applied(self, change: Tensor, server: Server, places: Places) -> None:
        self.rounds = server.number
        freeze, thaws = self.ratio.judge(change, places.mask, self.threshold, self.rows), None
        if places.mask is not None:
            for part in chunks(self.size, freeze.device):
                sent, frozen = places.mask[part], self.frozen[part]
                freeze[part].logical_and_(sent).logical_or_(frozen & ~sent)
                self.age[part].add_(frozen).mul_(~sent)
            if self.pending is not None:
                # what travelled in this round has thawed by earlier votes, and starts anew
                thaws = torch.zeros_like(freeze).scatter_(0, self.index, self.pending)
                thaws &= ~places.mask
        self.freeze(freeze)
        self.pending = None if thaws is None else thaws.index_select(0, self.index)
        crowded = self.labelled > self.settings.tighten_at * self.size
        if crowded and not self.crowded:
            self.threshold = halved(self.threshold, self.settings.threshold_floor)
        self.crowded = crowded

    def state(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            **self.ratio.state(),
            "frozen": self.frozen,
            "age": self.age,
            "rounds": self.rounds,
            "crowded": self.crowded,
            "pending": self.pending,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.threshold, self.crowded = state["threshold"], state["crowded"]
        self.ratio.load(state)
        self.age, self.rounds = state["age"], state["rounds"]
        self.freeze(state["frozen"])
        riding = self.settings.votes == "riding"
        self.pending = state.get("pending") if riding else None
