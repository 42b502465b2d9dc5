"""The encoder of factors: blocks that begin anew with each factor, and send no padding.

Where the bytes go is decided by a reduction, as for the encoders in encoders.py.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from trainer.exchange.encoders import Key, as_bytes, as_type, integers, nibbles, parts, quantised


class Ragged:
    """Several vectors one after another, each from the start of a block, in `bits` bits a value.

    A vector of n values takes ceil(n / block) blocks in the values that this encoder is given, the
    last of them filled up with zeros (`padded`), which are not sent. So n values take n bits / 8
    bytes, and 2 for the scale of each block: a large factor's scale cannot spoil a small one, and
    neither costs more than it holds. 32 bits are float32, without scales. A part is the scales of
    its blocks, then its values.
    """

    def __init__(self, lengths: Sequence[int], block: int, bits: int) -> None:
        self.block, self.bits, self.exact = block, bits, bits == 32
        self.most = 2 ** (bits - 1) - 1 if bits < 32 else 0
        self.lengths = tuple(lengths)
        self.rows = [-(-length // block) for length in lengths]
        self.starts = [block * row for row in accumulate(self.rows, initial=0)]
        self.count = self.starts[-1]  # of the values with what fills them up
        real = torch.zeros(self.count, dtype=torch.bool)
        for start, length in zip(self.starts, lengths, strict=False):
            real[start : start + length] = True
        self.real = real
        # how many values are sent of those before each block
        self.before: list[int] = [0, *real.view(sum(self.rows), block).sum(1).cumsum(0).tolist()]

    def padded(self, vectors: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return the vectors in one, (count,), each from the start of a block."""
        joined = like.new_zeros(self.count)
        for start, vector in zip(self.starts, vectors, strict=False):
            joined[start : start + vector.numel()] = vector.reshape(-1)
        return joined

    def split(self, joined: Tensor) -> list[Tensor]:
        """Return the vectors that `padded` was given, as views."""
        return [
            joined[start : start + length]
            for start, length in zip(self.starts, self.lengths, strict=False)
        ]

    def _sent(self, count: int, at: int) -> int:
        """Return how many of `count` values from place `at` on are sent."""
        return self.before[-(-(at + count) // self.block)] - self.before[at // self.block]

    def size(self, count: int, at: int = 0) -> int:
        scales = 0 if self.exact else 2 * -(-count // self.block)
        return scales + -(-self._sent(count, at) * self.bits // 8)

    def cost(self, coded: Sequence[Tensor], count: int) -> tuple[int, int]:
        return self.size(count), 0

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        real = parts(self.real[cuts[0] :].to(values.device), cuts)
        if self.exact:
            sent = zip(parts(values.float(), cuts), real, strict=True)
            return [part[chosen].view(torch.uint8) for part, chosen in sent]
        q, scale = quantised(values.float().view(-1, self.block), self.most)
        scales = parts(as_bytes(scale), [cut // self.block for cut in cuts])
        return [
            torch.cat([rows.reshape(-1), self._packed(part[chosen])])
            for rows, part, chosen in zip(scales, parts(q.view(-1), cuts), real, strict=True)
        ]

    def _packed(self, q: Tensor) -> Tensor:
        if self.bits == 8:
            return q.view(torch.uint8)
        return nibbles(torch.cat([q, q.new_zeros(len(q) % 2)]))

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        real = self.real[at : at + count].to(data.device)
        rows = 0 if self.exact else count // self.block
        if self.exact:
            sent = as_type(data, torch.float32)
        else:
            packed = data[2 * rows :]
            q = packed.clone().view(torch.int8) if self.bits == 8 else integers(packed)
            sent = q[: self._sent(count, at)].float()
        values = sent.new_zeros(count).masked_scatter_(real, sent)
        if rows:
            scale = as_type(data[: 2 * rows], torch.bfloat16).float()
            values.view(rows, self.block).mul_((scale / self.most)[:, None])
        return values
