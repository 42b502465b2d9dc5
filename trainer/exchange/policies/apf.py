"""Adaptive Parameter Freezing (Chen et al., ICDCS 2021): frozen values stand still everywhere.

Symbols: Ts = threshold, alpha = ema, E and Eabs = DriftRatio, L = period (rounds), K = round.
The mask follows from agreed values and the run's seed alone, so it costs no traffic.

For large models, unstable coordinates can be frozen too, at random: Aggressive APF (of the paper's
submission), APF# and APF++ (Chen et al., TPDS 2023).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import APF as Settings
from trainer.exchange.message import Places
from trainer.exchange.policies.drift import DriftRatio, chunks, halved
from trainer.exchange.policies.policy import FreezingPolicy
from trainer.keys import Purpose, stream
from trainer.turn import Server, Turn


class APF(FreezingPolicy):
    """Additive increase, multiplicative decrease of each coordinate's frozen period.

    A coordinate that is stable when judged sleeps one round longer than the last time; one that is
    not sleeps half as long, and some random rounds more if the settings say so. Asleep, it is
    rolled back after each local step and not exchanged.
    """

    def __init__(self, settings: Settings, size: int, device: torch.device, seed: int = 0) -> None:
        self.settings, self.size, self.seed = settings, size, seed
        self.threshold = settings.threshold
        self.ratio = DriftRatio(size, settings.ema, device)
        self.period = torch.zeros(size, dtype=torch.int16, device=device)  # L
        self.asleep = torch.zeros_like(self.period)  # rounds left out from now on
        self.freeze(self.asleep > 0)

    def freeze(self, frozen: Tensor) -> None:
        super().freeze(frozen)
        self.values: Tensor | None = None  # (F,) the agreed values there, in this round

    def stepped(self, turn: Turn) -> None:
        if self.labelled:
            if self.values is None:
                self.values = turn.server.anchor.index_select(0, self.index)
            turn.params.scatter_(0, self.index, self.values)

    def applied(self, change: Tensor, server: Server, places: Places) -> None:
        self.ratio.update(change, places.mask)
        stable = self.ratio.below(self.threshold)
        extra = random_rounds(self.settings, self.seed, self.size, server.number)
        for part in chunks(self.size):
            period, asleep, frozen = self.period[part], self.asleep[part], self.frozen[part]
            judged = torch.where(stable[part], period + 1, period // 2)
            period.copy_(torch.where(frozen, period, judged))
            more = next(extra).to(period.device) * ~stable[part]  # beyond L, which it leaves alone
            asleep.copy_(torch.where(frozen, asleep - 1, period + more))
        self.freeze(self.asleep > 0)
        if self.labelled > self.settings.tighten_at * self.size:
            self.threshold = halved(self.threshold, self.settings.threshold_floor)

    def state(self) -> dict[str, Any]:
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


def random_rounds(settings: Settings, seed: int, size: int, round_number: int) -> Iterator[Tensor]:
    """For how many rounds each coordinate sleeps if it is unstable: int16, in `chunks`.

    Drawn on the CPU, so that ranks with unlike devices draw alike, and from the round alone.
    """
    ramp, most = settings.random_probability_ramp, settings.random_probability
    grown = min(round_number / ramp, 1.0)
    # below the probability, a draw is uniform again: it gives the length as well
    probability, shortest, per_draw = {
        "none": (0.0, 0, 0.0),
        "sharp": (most, 1, 0.0),
        "aggressive": (min(grown, most), 1, 0.0),
        "plus": (grown, 0, ramp / settings.random_length_ramp),
    }[settings.random]
    draws = stream(seed, Purpose.FREEZING, round_number)
    for part in chunks(size):
        if not probability:
            yield torch.zeros(1, dtype=torch.int16)
            continue
        draw = torch.rand(min(part.stop, size) - part.start, generator=draws)
        length = shortest + draw * per_draw
        yield (length * (draw < probability)).to(torch.int16)
