"""Staggered frozen periods: parameters that froze together come back in different rounds.

Without it, all that froze in one round and stay stable return in one round as well, which then
sends as much as if nothing were frozen.
"""

from zlib import crc32

import torch
from torch import Tensor

from trainer.exchange.rows import Rows
from trainer.keys import Purpose, stream
from trainer.layout import Layout

MOST = 2**15  # numbers that int16 holds from 0 on


def shifts(
    layout: Layout, seed: int, count: int, device: torch.device, rows: Rows | None = None
) -> Tensor:
    """Return a number from 0 to count - 1 for each coordinate, int16 (P,), all as likely.

    rows: that have one number each.

    It depends on the seed, the tensor's name and the place in it. So all ranks draw the same, and
    a stage of a pipeline what the whole model would.
    """
    drawn = [
        torch.randint(
            count,
            (piece.size,),
            generator=stream(seed, Purpose.STAGGER, crc32(piece.name.encode())),
            dtype=torch.int16,
        )
        for piece in layout.pieces
    ]
    joined = torch.cat(drawn)
    return (joined if rows is None else rows.spread(rows.first(joined))).to(device)


def spread(period: Tensor, shift: Tensor) -> Tensor:
    """Return how long coordinates of period L sleep: int16 (n,), any of L + 1 lengths around L.

    The shortest is L / 2 rounded up, so one that is stable sleeps for a round at least. Over even
    shifts the mean is L, or half a round more if L is odd.
    """
    return period - period // 2 + shift % (period + 1)


def whole(size: int) -> Layout:
    """Return the layout of a vector that is one tensor."""
    return Layout([("", (size,))])
