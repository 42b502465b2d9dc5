"""Adaptive Parameter Freezing (Chen et al., ICDCS 2021): frozen values stand still everywhere.

Clients have no say here: the mask follows from agreed values and the run's seed alone, so it costs
no traffic. Symbols: Ts = threshold, alpha = ema, E and Eabs = DriftRatio, L = period (rounds),
K = round. A coordinate is stable if |E| / Eabs < Ts.

For large models, unstable coordinates can be frozen at random as well: Aggressive APF (of the
paper's submission), APF# and APF++ (Chen et al., TPDS 2023).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.config.communication import APF as Settings
from trainer.exchange.masks import choose, chunks
from trainer.exchange.message import Places
from trainer.exchange.policies.drift import DriftRatio, halved
from trainer.exchange.policies.policy import FreezingPolicy
from trainer.exchange.policies.stagger import MOST, shifts, spread, whole
from trainer.exchange.rows import Rows
from trainer.keys import Purpose, stream
from trainer.layout import Layout
from trainer.turn import Server, Turn


class APF(FreezingPolicy):
    """Additive increase, multiplicative decrease of each coordinate's frozen period.

    A coordinate that is stable when judged sleeps one round longer than the last time: L <- L + 1.
    One that is not sleeps half as long, L <- floor(L / 2), and some random rounds more if the
    settings require it. As in TCP's control of congestion, the period is found by trial: it grows
    slowly while freezing does no harm, and falls quickly when the coordinate moves again. A
    sleeping coordinate is rolled back after each local step and not exchanged.

    With `stagger` it sleeps from L / 2 to 3 L / 2 rounds, about L in the mean, so that coordinates
    of one period wake in different rounds.
    """

    def __init__(
        self,
        settings: Settings,
        size: int,
        device: torch.device,
        seed: int = 0,
        layout: Layout | None = None,
    ) -> None:
        self.settings, self.size, self.seed = settings, size, seed
        layout = layout or whole(size)
        self.rows = Rows(layout) if settings.unit == "row" else None
        self.shifts: Tensor | None = None
        if settings.stagger:
            self.shifts = shifts(layout, seed, MOST, device, self.rows)
        self.threshold = settings.threshold
        self.ratio = DriftRatio(size, settings.ema, device)
        self.period = torch.zeros(size, dtype=torch.int16, device=device)  # L
        self.asleep = torch.zeros_like(self.period)  # rounds that it still stays excluded
        self.freeze(self.asleep > 0)

    def freeze(self, frozen: Tensor) -> None:
        super().freeze(frozen)
        self.values: Tensor | None = None  # (F,) the agreed values of this round there

    def stepped(self, turn: Turn) -> None:
        if self.labelled:
            if self.values is None:
                self.values = turn.server.anchor.index_select(0, self.index)
            turn.params.scatter_(0, self.index, self.values)

    def applied(self, change: Tensor, server: Server, places: Places) -> None:
        found = self.ratio.judge(change, places.mask, self.threshold, self.rows)
        extra = self._extra(server.number)
        for part in chunks(self.size, found.device):
            period, asleep, frozen = self.period[part], self.asleep[part], self.frozen[part]
            stable = found[part]
            judged = period >> 1
            choose(stable, period + 1, judged, out=judged)
            choose(frozen, period, judged, out=period)
            sleep = period if self.shifts is None else spread(period, self.shifts[part])
            if extra is not None:  # added to the sleep, not to L
                sleep = sleep + next(extra).to(period.device) * ~stable
            # what is awake has 0 rounds left
            asleep.sub_(frozen.view(torch.int8)).add_(sleep * (~frozen).view(torch.int8))
            torch.gt(asleep, 0, out=stable)
        self.freeze(found)
        if self.labelled > self.settings.tighten_at * self.size:
            self.threshold = halved(self.threshold, self.settings.threshold_floor)

    def _extra(self, number: int) -> Iterator[Tensor] | None:
        """Return the rounds that coordinates sleep more if unstable, in `chunks`; None: 0."""
        if self.settings.random == "none":
            return None
        device = self.period.device
        if self.rows is None:
            return random_rounds(self.settings, self.seed, self.size, number, device)
        count = self.rows.count
        own = torch.cat([*random_rounds(self.settings, self.seed, count, number, device)])
        spread_out = self.rows.spread(own)
        return (spread_out[part] for part in chunks(self.size, device))

    def state(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            **self.ratio.state(),
            "period": self.period,
            "asleep": self.asleep,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.threshold = state["threshold"]
        self.ratio.load(state)
        self.period, self.asleep = state["period"], state["asleep"]
        self.freeze(self.asleep > 0)


def random_rounds(
    settings: Settings, seed: int, size: int, round_number: int, device: torch.device
) -> Iterator[Tensor]:
    """Yield how many rounds each coordinate sleeps if it is unstable: int16, in `chunks`.

    The draw depends on seed and round alone, and is made on the CPU, so that ranks with different
    devices draw the same numbers. device: that whose chunks they are.
    """
    ramp, most = settings.random_probability_ramp, settings.random_probability
    grown = min(round_number / ramp, 1.0)
    # A draw u, uniform on [0, 1), freezes if u < p. Given that, u is uniform on [0, p), so it also
    # gives the length: for APF++, u ramp / length_ramp is uniform on [0, K / length_ramp).
    probability, shortest, per_draw = {
        "none": (0.0, 0, 0.0),
        "sharp": (most, 1, 0.0),
        "aggressive": (min(grown, most), 1, 0.0),
        "plus": (grown, 0, ramp / settings.random_length_ramp),
    }[settings.random]
    draws = stream(seed, Purpose.FREEZING, round_number)
    for part in chunks(size, device):
        draw = torch.rand(part.stop - part.start, generator=draws)
        length = shortest + draw * per_draw
        yield (length * (draw < probability)).to(torch.int16)
