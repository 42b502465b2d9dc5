"""The drift ratio of APF and GWPF: |EMA(g)| / EMA(|g|), one ratio per coordinate.

What is done with a coordinate of low ratio is the policies' decision. g is the change of the agreed
value over a round, and EMA an exponential moving average with factor alpha (`ema`):

    E <- alpha E + (1 - alpha) g        Ea <- alpha Ea + (1 - alpha) |g|

Both are sums of the past g with the same weights (1 - alpha) alpha^j, so |E| <= Ea by the triangle
inequality. The ratio is 1 if all changes had the same sign, and near 0 if they cancel, which is an
oscillation around one place. It does not reach 0: if g is noise of random sign and constant size,
E has the variance g^2 (1 - alpha)^2 / (1 - alpha^2), so the ratio is around
sqrt((1 - alpha) / (1 + alpha)), which is 0.07 for alpha = 0.99. A threshold far below that freezes
hardly anything.

The averages start at 0, which scales both by the same 1 - alpha^t after t rounds. The factor
cancels in the ratio, so no bias correction is needed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.exchange.masks import chunks, numbers
from trainer.exchange.rows import Rows


def halved(threshold: float, floor: float) -> float:
    """Return half the threshold, but not below the floor; one that is already below it stays."""
    return min(threshold, max(threshold / 2, floor))


class DriftRatio:
    """E (signed) and Ea (absolute) of the papers, each (P,)."""

    def __init__(self, size: int, ema: float, device: torch.device) -> None:
        self.ema = ema
        self.signed = torch.zeros(size, device=device)
        self.absolute = torch.zeros(size, device=device)

    @classmethod
    def of(cls, signed: Tensor, absolute: Tensor, ema: float) -> "DriftRatio":
        """Create the statistic on two existing vectors, (P,) each, which it changes in place."""
        ratio = cls(0, ema, signed.device)
        ratio.signed, ratio.absolute = signed, absolute
        return ratio

    def update(self, g: Tensor, mask: Tensor | None) -> None:
        """Add the sample `g` (P,) where mask is true, and leave |g| in `g`.

        E.lerp_(g, w) is E + w (g - E), which is the average above for w = 1 - alpha. Where the
        mask is false the weight is zero, and both averages keep their bits.
        """
        for part in self._chunks():
            self._update(part, g[part], None if mask is None else mask[part])

    def judge(
        self, g: Tensor, mask: Tensor | None, threshold: float, rows: Rows | None = None
    ) -> Tensor:
        """Add a sample as `update` does, and return what `below` returns then, in one pass."""
        if rows is not None:
            self.update(g, mask)
            return self.below(threshold, rows)
        below = torch.empty_like(self.signed, dtype=torch.bool)
        for part in self._chunks():
            self._update(part, g[part], None if mask is None else mask[part])
            self._compare(part, threshold, below[part])
        return below

    def below(self, threshold: float, rows: Rows | None = None) -> Tensor:
        """Return where the ratio is below the threshold: bool (P,).

        |E| < Ea T needs no division. A coordinate that never moved has 0 < 0, so it is not below.
        rows: judge these as wholes, by sum |E| / sum Ea over the row, which is in [0, 1] too.
        """
        if rows is not None:
            signed, absolute = rows.sums(self.signed.abs()), rows.sums(self.absolute)
            return rows.spread(signed < absolute * threshold)
        below = torch.empty_like(self.signed, dtype=torch.bool)
        for part in self._chunks():
            self._compare(part, threshold, below[part])
        return below

    def _chunks(self) -> Iterator[slice]:
        return chunks(len(self.signed), self.signed.device)

    def _update(self, part: slice, g: Tensor, mask: Tensor | None) -> None:
        weight = 1 - self.ema if mask is None else numbers(mask, g.dtype).mul_(1 - self.ema)
        self.signed[part].lerp_(g, weight)
        self.absolute[part].lerp_(g.abs_(), weight)

    def _compare(self, part: slice, threshold: float, below: Tensor) -> None:
        torch.lt(self.signed[part].abs(), self.absolute[part] * threshold, out=below)

    def state(self) -> dict[str, Tensor]:
        """Return the averages, for a policy's state."""
        return {"signed": self.signed, "absolute": self.absolute}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`, from a policy's state that contains it."""
        self.signed, self.absolute = state["signed"], state["absolute"]
