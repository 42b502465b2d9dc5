"""Streaming DiLoCo's fragments (Douillard et al. 2025, arXiv 2501.18512): parts travel in turn.

A round's exchange is of one fragment; each fragment is in every F-th. Symbols: F = fragments, p = a
fragment, H = local steps between two exchanges of p, so a round has H / F of them; x_p = anchor,
y_p = a client's own values. In the round of p

    Delta_p = mean over clients of (x_p - y_p);   x_p <- OuterOpt(x_p, Delta_p);   y_p <- x_p

and all other fragments go on from the client's own values: they train as if no round had ended. The
outer optimizer's state of a fragment moves only when the fragment travels (`pauses`), so F rounds
do to each of them what one round of DiLoCo with H steps does to the model. Bytes are the same, but
a round sends an F-th of them. With F = 1 this is full synchronisation.

A client that was away starts from the agreed values of what has travelled in between, and keeps its
own of the rest. Fragments are divided by the whole model's tensors, so they are the same on one
device and on a pipeline, where a stage may have nothing of a fragment.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import Streaming as Settings
from trainer.exchange.message import Places
from trainer.exchange.policies.fragments import divide, here
from trainer.exchange.policies.policy import Policy
from trainer.layout import Layout
from trainer.turn import Memory, Turn


class Streaming(Policy):
    """A client keeps its own model (P,) between rounds; what is agreed is only a number."""

    excludes = True
    pauses = True

    def __init__(
        self,
        settings: Settings,
        size: int,
        device: torch.device,
        seed: int = 0,
        layout: Layout | None = None,
    ) -> None:
        self.settings, self.size, self.device = settings, size, device
        self.rounds = 0  # that have ended
        self.overlap = settings.overlap
        self.keeps = settings.fragments > 1 or self.overlap > 0

    def arrange(self, layout: Layout, whole: Layout) -> None:
        fragments = divide(whole, self.settings.fragments, self.settings.pattern)
        self.fragments = [here(fragment, whole, layout) for fragment in fragments]
        self._end_round(0)

    def _end_round(self, number: int) -> None:
        self.rounds = number
        self.count = sum(place.stop - place.start for place in self._travelling(number + 1))
        self.labelled = self.size - self.count

    def _travelling(self, number: int) -> list[slice]:
        """Return the places of the fragment that travels in a round, from 1."""
        return self.fragments[(number - 1) % len(self.fragments)]

    def _apart(self, since: int) -> list[slice]:
        """Return the places that have not travelled since a client kept its values, in a round."""
        if self.overlap:  # what has travelled is mixed, and what travels is still to arrive
            return [slice(0, self.size)]
        count = len(self.fragments)
        recent = range(max(since, self.rounds + 1 - count), self.rounds + 1)
        gone = {(number - 1) % count for number in recent}
        return [p for at, places in enumerate(self.fragments) if at not in gone for p in places]

    # ------------------------------------------------------------------ at each client

    def entering(self, turn: Turn, memory: Memory) -> None:
        if memory:
            for place in self._apart(int(memory["round"])):
                turn.params[place] = memory["local"][place]

    def leaving(self, turn: Turn, memory: Memory) -> Tensor | None:
        if self.keeps:
            memory.update(local=turn.params.clone(), round=torch.tensor(turn.server.number))
        return None

    def displacement(self, anchor: Tensor, memory: Memory) -> Tensor | None:
        if not memory:
            return None
        apart = torch.zeros_like(anchor)
        for place in self._apart(int(memory["round"])):
            torch.sub(anchor[place], memory["local"][place], out=apart[place])
        return apart

    def drifted(self) -> Tensor | None:
        places = self._apart(self.rounds) if self.rounds else []
        return self._mask(places) if places else None

    # ------------------------------------------------------------------ on every rank alike

    def select(self, decided: Tensor | None) -> Places:
        return Places(self.size, self.live(), self.count)

    def live(self) -> Tensor | None:
        if len(self.fragments) == 1:
            return None
        return self._mask(self._travelling(self.rounds + 1))

    def _mask(self, places: list[slice]) -> Tensor:
        mask = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        for place in places:
            mask[place] = True
        return mask

    def departed(self, number: int) -> None:
        self._end_round(number)

    def mix(self, own: Tensor, anchor: Tensor, places: Places) -> None:
        mixed = torch.lerp(anchor, own, self.settings.alpha)
        own.copy_(mixed if places.mask is None else torch.where(places.mask, mixed, own))

    def state(self) -> dict[str, Any]:
        return {"rounds": self.rounds}

    def load(self, state: Mapping[str, Any]) -> None:
        self._end_round(state["rounds"])
