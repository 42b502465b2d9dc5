"""The encoder of a few large values: their places, signs and few magnitudes, in blocks.

Where the bytes go is decided by a reduction, as for the encoders in encoders.py.
"""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.exchange.encoders import Key, Rowed, as_bytes, as_type
from trainer.exchange.masks import chunks
from trainer.exchange.packing import bitmap, bits


class TopK(Rowed):
    """The k = ceil(share n) largest values of each block of n, as signs of one or two magnitudes.

    levels 1: a kept value is decoded as the mean magnitude of those kept, with its sign: one bit.
    levels 2: one bit more says whether its magnitude is above that mean; then it is decoded as the
    mean of those above, or of those not above. Scales are bf16. As with signs (signs.py) the loss
    of the kept values is |x|^2 - k s^2, so that C is a contraction: |x - C(x)|^2 is |x|^2 (1 - 1/n)
    at most, but for the rounding of s. A block of zeros stays zero; in one with fewer than k other
    values, kept zeros do not.

    Places are coded as by Elias and Fano: with sorted places p_0 < ... < p_(k-1) below n and r low
    bits, the bit p_i // 2^r + i of k + ceil(n / 2^r) bits is set for each i, and p_i mod 2^r
    follows in r bits. That is Rice's code of their gaps, with the unary parts by themselves and
    filled up to the length that they can reach: a few percent longer, but a block's bytes are known
    without looking at it, so that no sizes are exchanged. If a bit for each of the n values is
    shorter (a share of about a quarter or more), it is that.

    A row of bytes, one for each block: scales, places, whether below zero, whether above the mean.
    """

    def __init__(self, share: float, block: int, *, levels: int) -> None:
        self.block, self.levels = block, levels
        self.kept = ceil(share * block)  # k
        lengths = {low: self._index_bits(low) for low in range(block.bit_length())}
        self.low = min(lengths, key=lambda low: lengths[low])  # r
        self.listed = lengths[self.low] < block
        self.high = self.kept + ceil(block / (1 << self.low)) if self.listed else block
        high, low = bytes_of(self.high), bytes_of(self.kept * self.low if self.listed else 0)
        signs = bytes_of(self.kept)
        self.widths = [2 * levels, high, low, *[signs] * levels]
        self.index, self.row = high + low, sum(self.widths)

    def _index_bits(self, low: int) -> int:
        return self.kept * (low + 1) + ceil(self.block / (1 << low))

    def cost(self, coded: Sequence[Tensor], count: int) -> tuple[int, int]:
        blocks = ceil(count / self.block)
        return blocks * (self.row - self.index), blocks * self.index

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        x = self._blocks(values)
        places = largest(x, self.kept)
        chosen = x.gather(1, places)
        scales, above = magnitudes(chosen.abs(), self.levels)
        fields = [as_bytes(scales.flatten()).view(len(x), 2 * self.levels), *self._listed(places)]
        fields += [packed(chosen < 0), *([packed(above)] if self.levels == 2 else [])]
        return self._shares(torch.cat(fields, dim=1), cuts)

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        scales, high, low, *signs = data.view(-1, self.row).split(self.widths, dim=1)
        negative, *above = (unpacked(field, self.kept) for field in signs)
        scale = as_type(scales.reshape(-1), torch.bfloat16).float().view(-1, self.levels)
        level = above[0].long() if above else torch.zeros_like(negative, dtype=torch.int64)
        kept = scale.gather(1, level) * (1 - 2 * negative.to(torch.int8))
        x = kept.new_zeros(len(kept), self.block)
        values: Tensor = x.scatter_(1, self._places(high, low), kept).view(-1)[:count]
        return values

    def _listed(self, places: Tensor) -> list[Tensor]:
        """Return the bytes of sorted places (blocks, k): the high part, and the low one."""
        order = torch.arange(self.kept, device=places.device)
        at = (places >> self.low) + order if self.listed else places
        high = torch.zeros(len(places), self.high, dtype=torch.bool, device=places.device)
        high.scatter_(1, at, True)
        if not self.listed:
            return [packed(high), high.new_zeros(len(places), 0, dtype=torch.uint8)]
        shifts = torch.arange(self.low, device=places.device)
        low = (places[:, :, None] >> shifts) & 1
        return [packed(high), packed(low.flatten(1).bool())]

    def _places(self, high: Tensor, low: Tensor) -> Tensor:
        """Return what `_listed` was given."""
        at = unpacked(high, self.high).nonzero()[:, 1].view(-1, self.kept)
        if not self.listed:
            return at
        digits = unpacked(low, self.kept * self.low).view(len(at), self.kept, self.low).long()
        shifts = torch.arange(self.low, device=at.device)
        order = torch.arange(self.kept, device=at.device)
        return ((at - order) << self.low) + (digits << shifts).sum(2)


def largest(x: Tensor, kept: int) -> Tensor:
    """Return the sorted places (blocks, kept) of the largest magnitudes of each block (blocks, n).

    Of equal ones the first is taken, on any device and beside any other blocks. What is no number
    counts as larger than any, so that it shows.
    """
    count = x.shape[1]
    earlier = torch.arange(count, 0, -1, device=x.device)
    found = []
    for part in chunks(len(x), x.device, count):  # since a rank takes more bytes than a value
        rows = x[part]
        # the order of magnitudes is that of their bits as integers, without the sign
        magnitude = (rows.contiguous().view(torch.int32) & 0x7FFFFFFF).long()
        rank = (magnitude << count.bit_length()) + earlier
        found.append(rank.topk(kept, dim=1, sorted=False).indices)
    return torch.cat(found).sort(dim=1).values


def magnitudes(kept: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Return bf16 scales (blocks, levels) of magnitudes (blocks, k), and which have the second."""
    # in float64, so that it is rounded alike beside any number of other blocks
    mean = kept.sum(1, keepdim=True, dtype=torch.float64) / kept.shape[1]
    above = kept > mean
    if levels == 1:
        return mean.to(torch.bfloat16), above
    scales = []
    for group in (~above, above):
        total = kept.masked_fill(~group, 0).sum(1, dtype=torch.float64)
        scales.append(total / group.sum(1).clamp(min=1))
    return torch.stack(scales, dim=1).to(torch.bfloat16), above


def bytes_of(count: int) -> int:
    """Return the bytes that so many bits fill."""
    return -(-count // 8)


def packed(flags: Tensor) -> Tensor:
    """Return bool (rows, n) as bits, each row in whole bytes."""
    filled = pad(flags, (0, -flags.shape[1] % 8))
    return bitmap(filled.flatten()).view(len(flags), bytes_of(flags.shape[1]))


def unpacked(data: Tensor, count: int) -> Tensor:
    """Return what `packed` was given, as uint8 (rows, count), 0 or 1."""
    return bits(data.reshape(-1), 8 * data.numel()).view(len(data), 8 * data.shape[1])[:, :count]
