"""The encoder of signs: one bit for each value, and one scale for each block of them.

Where the bytes go is decided by a reduction, as for the encoders in encoders.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.exchange.encoders import Key, Rowed, as_bytes, as_type
from trainer.exchange.packing import bitmap, bits


class Signs(Rowed):
    """Signs with the mean magnitude of their block: EF-signSGD (Karimireddy et al., ICML 2019).

    Symbols: x = the n values of a block; s = sum of |x_i| / n, as bf16; decoded: C(x)_i = s, or -s
    where x_i < 0. The last block may be shorter; what fills it up counts for nothing in s. Then

        |x - C(x)|^2 = |x|^2 - n s^2 (1 - d^2),  d = the relative error of s in bf16,

    so C is a contraction, as error feedback requires: what is lost is never more than x. It can be
    nearly all of it, though, if one value is much larger than the others; without feedback signs
    alone do not converge. A block of zeros stays zero, but a zero beside other values does not.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self.row = block // 8 + 2  # bytes of a block with its scale

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        x = self._blocks(values)
        missing = x.numel() - len(values)
        lengths = torch.full((len(x),), self.block, device=x.device)
        if missing:
            lengths[-1] -= missing
        # in float64, so that it is rounded alike beside any number of other blocks
        scale = (x.abs().sum(1, dtype=torch.float64) / lengths).to(torch.bfloat16)
        signs = bitmap(x.flatten() < 0).view(-1, self.block // 8)
        return self._shares(torch.cat([signs, as_bytes(scale)], dim=1), cuts)

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        rows = data.view(-1, self.row)
        scale = as_type(rows[:, -2:].reshape(-1), torch.bfloat16).float()
        negative = bits(rows[:, :-2].reshape(-1), len(rows) * self.block)
        signs = 1 - 2 * negative.to(torch.int8)
        values: Tensor = (signs.view(-1, self.block) * scale[:, None]).reshape(-1)
        return values[:count]
