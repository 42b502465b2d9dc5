"""The rule of the published GWPF code, defects included, so that it can be compared.

The rule of the paper is in gwpf.py. The code differs from it in four ways that decide its traffic:
- two buffers alias, so E and Ea average the weights instead of the updates (`aliased`);
- a freeze label is permanent; a "thaw" only adds the coordinate to the exchange for a while;
- a single client's vote thaws, from the H - 1 local steps of one round, which are then forgotten;
- votes travel as int32: 4 bytes for each labelled coordinate, as many as leaving it out saves.
Symbols of the code: L = frozen, L2 = persistence (rounds + 1 with votes, halved without).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import GWPFReleased as Settings
from trainer.exchange.message import Places
from trainer.exchange.policies.drift import DriftRatio
from trainer.exchange.policies.policy import FreezingPolicy
from trainer.layout import Layout
from trainer.turn import Memory, Server, Turn


class GWPFReleased(FreezingPolicy):
    """The published rule; a client's statistic is over the first H - 1 steps of one round."""

    keeps = True
    lanes = False

    def __init__(
        self,
        settings: Settings,
        size: int,
        device: torch.device,
        seed: int = 0,
        layout: Layout | None = None,
    ) -> None:
        self.settings, self.size = settings, size
        self.threshold = settings.threshold
        self.ratio = DriftRatio(size, settings.ema, device)
        self.persistence = torch.zeros(size, dtype=torch.int32, device=device)
        self.sent: Tensor | None = None  # the last round's exchanged coordinates
        self.freeze(torch.zeros(size, dtype=torch.bool, device=device))

    def entering(self, turn: Turn, memory: Memory) -> None:
        if not self.labelled:
            return
        last = turn.params.clone()  # values at the last recorded step
        if memory:
            # an average does not refresh `last`, so the next difference contains the jump
            last.masked_scatter_(memory["mask"], memory["last"])
            kept = memory["mask"] if self.sent is None else memory["mask"] & ~self.sent
            drifted = turn.params.clone().masked_scatter_(memory["mask"], memory["local"])
            torch.where(kept, drifted, turn.params, out=turn.params)
        # the client's own E and Ea, and its values after the latest step
        signed, absolute = torch.zeros_like(last), torch.zeros_like(last)
        turn.work |= {"released.last": last, "released.current": last.clone()}
        turn.work |= {"released.signed": signed, "released.absolute": absolute}

    def _own(self, turn: Turn) -> DriftRatio:
        """Return the statistic of the client that is being trained."""
        return DriftRatio.of(
            turn.work["released.signed"], turn.work["released.absolute"], self.settings.ema
        )

    def stepped(self, turn: Turn) -> None:
        """Record the step before this one, so that the last step of a round never counts."""
        if not self.labelled:
            return
        last, current = turn.work["released.last"], turn.work["released.current"]
        self._own(turn).update(last.sub_(current), None)
        last.copy_(current)
        current.copy_(turn.params)

    def leaving(self, turn: Turn, memory: Memory) -> Tensor | None:
        if not self.labelled:
            memory.clear()
            return None
        own, last = self._own(turn), turn.work["released.last"]
        memory.update(mask=self.frozen, local=turn.params[self.frozen], last=last[self.frozen])
        moved = own.absolute > 0
        return (moved & ~own.below(self.threshold))[self.frozen]

    def displacement(self, anchor: Tensor, memory: Memory) -> Tensor | None:
        if not memory or self.sent is None:
            return None
        local = anchor.clone().masked_scatter_(memory["mask"], memory["local"])
        return (anchor - local).mul_(memory["mask"] & ~self.sent)

    def drifted(self) -> Tensor | None:
        return None if self.sent is None else ~self.sent

    @property
    def voting(self) -> bool:
        return self.labelled > 0

    def ballot_bytes(self) -> int:
        return 4 * self.labelled

    def select(self, decided: Tensor | None) -> Places:
        if decided is None:
            self.sent = None
            return Places(self.size)
        persistence = self.persistence[self.frozen]
        persistence = torch.where(decided, persistence + 1, persistence // 2)
        self.persistence.masked_scatter_(self.frozen, persistence)
        self.sent = ~self.frozen | (self.persistence > 0)
        return Places(self.size, self.sent)

    def applied(self, change: Tensor, server: Server, places: Places) -> None:
        active = ~self.frozen
        self.ratio.update(server.anchor.clone() if self.settings.aliased else change, active)
        self.freeze(self.frozen | (active & self.ratio.below(self.threshold)))
        if self.labelled > self.settings.tighten_at * self.size:
            self.threshold /= 2

    def decisive(self) -> Sequence[Tensor]:
        return [self.frozen, self.persistence]

    def state(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            **self.ratio.state(),
            "frozen": self.frozen,
            "persistence": self.persistence,
            "sent": self.sent,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.threshold, self.sent = state["threshold"], state["sent"]
        self.ratio.load(state)
        self.persistence = state["persistence"]
        self.freeze(state["frozen"])
