"""The encoder of factors: blocks that begin anew with each factor, and send no padding.

Where the bytes go is decided by a reduction, as for the encoders in encoders.py.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from trainer.exchange.encoders import Key, as_bytes, as_type, largest, parts, quantised, rounded_up
from trainer.exchange.packing import integers, nibbles


class Ragged:
    """Several vectors one after another, each from the start of a block, in `bits` bits a value.

    A vector of n values takes ceil(n / block) blocks in the values that this encoder is given, the
    last of them filled up with zeros (`padded`), which are not sent. So n values take n bits / 8
    bytes, and 2 for the scale of each block: a large factor's scale cannot spoil a small one, and
    neither costs more than it holds. 32 bits are float32, without scales. A part is the scales of
    its blocks, then its values.
    """

    pieced = False

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
        self.index = real.nonzero()[:, 0]  # the places of values that are sent
        # how many are sent of those before each block; known here, so that nothing waits for a GPU
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

    def _sent(self, count: int, at: int) -> slice:
        """Return which of all values that are sent lie among `count` from place `at` on."""
        return slice(self.before[at // self.block], self.before[-(-(at + count) // self.block)])

    def _places(self, count: int, at: int, device: torch.device) -> Tensor:
        """Return the places of these values, counted from `at`, int64."""
        if self.index.device != device:
            self.index = self.index.to(device)
        return self.index[self._sent(count, at)] - at

    def size(self, count: int, at: int = 0) -> int:
        scales = 0 if self.exact else 2 * -(-count // self.block)
        sent = self._sent(count, at)
        values: int = sent.stop - sent.start
        return scales + -(-values * self.bits // 8)

    def cost(self, coded: Sequence[Tensor], count: int) -> tuple[int, int]:
        return self.size(count), 0

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        spans = [(b - a, a) for a, b in pairwise(cuts)]
        chosen = [self._places(*span, values.device) for span in spans]
        if self.exact:
            sent = zip(parts(values.float(), cuts), chosen, strict=True)
            return [part.index_select(0, places).view(torch.uint8) for part, places in sent]
        x = values.float().view(-1, self.block)
        scale = rounded_up(largest(x))
        q = quantised(x, scale, self.most)
        scales = parts(as_bytes(scale), [cut // self.block for cut in cuts])
        return [
            torch.cat([rows.reshape(-1), self._packed(part.index_select(0, places))])
            for rows, part, places in zip(scales, parts(q.view(-1), cuts), chosen, strict=True)
        ]

    def _packed(self, q: Tensor) -> Tensor:
        if self.bits == 8:
            return q.view(torch.uint8)
        return nibbles(torch.cat([q, q.new_zeros(len(q) % 2)]))

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        places = self._places(count, at, data.device)
        rows = 0 if self.exact else count // self.block
        if self.exact:
            sent = as_type(data, torch.float32)
        else:
            packed = data[2 * rows :]
            q = packed.clone().view(torch.int8) if self.bits == 8 else integers(packed)
            sent = q[: len(places)].float()
        values = sent.new_zeros(count).index_copy_(0, places, sent)
        if rows:
            scale = as_type(data[: 2 * rows], torch.bfloat16).float()
            values.view(rows, self.block).mul_((scale / self.most)[:, None])
        return values
