"""The statistic that APF and GWPF share: |EMA(g)| / EMA(|g|), one ratio per coordinate.

g is the change of the agreed value. 1: it moves one way; near 0: it oscillates around its place.
The EMAs start at 0 and need no bias correction, since the factor cancels in the ratio.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from trainer.exchange.message import CHUNK


def chunks(size: int) -> Iterator[slice]:
    """A vector in pieces, so that no temporary is as long as the model."""
    return (slice(i, i + CHUNK) for i in range(0, size, CHUNK))


def halved(threshold: float, floor: float) -> float:
    """Half the threshold, but not below the floor; one that starts below it stays."""
    return min(threshold, max(threshold / 2, floor))


class DriftRatio:
    """E (signed) and Ea (absolute) of the papers, each (P,)."""

    def __init__(self, size: int, ema: float, device: torch.device) -> None:
        self.ema = ema
        self.signed = torch.zeros(size, device=device)
        self.absolute = torch.zeros(size, device=device)

    @classmethod
    def of(cls, signed: Tensor, absolute: Tensor, ema: float) -> "DriftRatio":
        """The statistic that works in these two vectors, (P,) each."""
        ratio = cls(0, ema, signed.device)
        ratio.signed, ratio.absolute = signed, absolute
        return ratio

    def update(self, g: Tensor, mask: Tensor | None) -> None:
        """Add the sample `g` (P,) where mask is true, and leave |g| in `g`.

        Elsewhere both averages keep their value: a lerp of weight zero changes no bit.
        """
        for part in chunks(len(self.signed)):
            weight = 1 - self.ema if mask is None else mask[part] * (1 - self.ema)
            self.signed[part].lerp_(g[part], weight)
            self.absolute[part].lerp_(g[part].abs_(), weight)

    def below(self, threshold: float) -> Tensor:
        """Where the ratio is below the threshold: bool (P,); 0/0, never moved, is not."""
        below = torch.empty_like(self.signed, dtype=torch.bool)
        for part in chunks(len(self.signed)):
            torch.lt(self.signed[part].abs(), self.absolute[part] * threshold, out=below[part])
        return below
