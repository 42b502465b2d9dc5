"""Owns Adaptive Parameter Freezing (Chen et al., ICDCS 2021): frozen values stand still everywhere.

Symbols: Ts = threshold, alpha = ema, E and Eabs = DriftRatio, L = period (rounds), K = round.
The mask follows from agreed values alone, so it costs no traffic.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import APF as Settings
from trainer.sync.comm import Comm
from trainer.sync.drift import DriftRatio, chunks, halved
from trainer.sync.policy import Electorate, FreezingPolicy, Memory, Selection


class APF(FreezingPolicy):
    """Additive increase, multiplicative decrease of each coordinate's frozen period.

    A coordinate that is stable when judged sleeps one round longer than the last time; one that is
    not sleeps half as long. Asleep, it is rolled back after each local step and not exchanged.
    """

    def __init__(self, settings: Settings, size: int, device: torch.device) -> None:
        self.settings, self.size = settings, size
        self.threshold = settings.threshold
        self.ratio = DriftRatio(size, settings.ema, device)
        self.period = torch.zeros(size, dtype=torch.int16, device=device)  # L
        self.asleep = torch.zeros_like(self.period)  # rounds left out from now on
        self.freeze(self.asleep > 0)

    def freeze(self, frozen: Tensor) -> None:
        super().freeze(frozen)
        self.values: Tensor | None = None  # (F,) the agreed values there, in this round

    def after_step(self, params: Tensor, anchor: Tensor) -> None:
        if self.frozen_count:
            if self.values is None:
                self.values = anchor.index_select(0, self.index)
            params.scatter_(0, self.index, self.values)

    def select(self, round_number: int, electorate: Electorate, comm: Comm) -> Selection:
        if not self.frozen_count:
            return Selection(None, self.size)
        active = self.size - self.frozen_count
        return Selection(~self.frozen, active, labelled=self.frozen_count)

    def observe(
        self, before: Tensor, anchor: Tensor, selection: Selection, round_number: int
    ) -> None:
        self.ratio.update(before.sub_(anchor), selection.mask)
        stable = self.ratio.below(self.threshold)
        for part in chunks(self.size):
            period, asleep, frozen = self.period[part], self.asleep[part], self.frozen[part]
            judged = torch.where(stable[part], period + 1, period // 2)
            period.copy_(torch.where(frozen, period, judged))
            asleep.copy_(torch.where(frozen, asleep - 1, period))
        self.freeze(self.asleep > 0)
        if self.frozen_count > self.settings.tighten_at * self.size:
            self.threshold = halved(self.threshold, self.settings.threshold_floor)

    def state(self) -> Memory:
        return {
            "threshold": self.threshold,
            "signed": self.ratio.signed,
            "absolute": self.ratio.absolute,
            "period": self.period,
            "asleep": self.asleep,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.threshold = state["threshold"]
        self.ratio.signed, self.ratio.absolute = state["signed"], state["absolute"]
        self.period, self.asleep = state["period"], state["asleep"]
        self.freeze(self.asleep > 0)
