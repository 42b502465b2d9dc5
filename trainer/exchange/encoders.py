"""Encoders: from one client's values to bytes, and back.

Where the bytes go is decided by a reduction. Blocks are at fixed positions of the values that
travel, and each block is coded separately, so the bytes of a message depend neither on the rank
that codes it nor on how many ranks share the decoding.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.exchange.masks import chunks
from trainer.exchange.packing import bitmap, bits, integers, nibbles
from trainer.keys import Purpose, stream

Key = tuple[int, ...]  # of the random stream, if rounding is stochastic: (seed, round, who, vector)


class Encoder(Protocol):
    """A format for vectors of values; they are updates (differences), never absolute weights."""

    block: int  # values that are coded together; a cut is at a multiple of it
    exact: bool  # decoding returns the same values
    pieced: bool  # one block's bytes follow another's, so that some can be decoded by themselves

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        """Return the bytes, uint8, of each part between two cuts; values (n,): from cuts[0] on."""

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        """Return the (count,) values of one part from its bytes; at: the place of the first one."""

    def size(self, count: int, at: int = 0) -> int | None:
        """Return the bytes of a part of `count` values; None: they depend on the values."""

    def cost(self, coded: Sequence[Tensor], count: int) -> tuple[int, int]:
        """Return the bytes of a message of `count` values in one part: of values, of their index.

        coded: the parts that it was coded in, since what a sparse message holds is only seen there.
        """


def cut(count: int, block: int, ranks: int) -> tuple[int, ...]:
    """Return where the owners' shares of `count` values begin and end, always between blocks."""
    blocks = ceil(count / block)
    share = ceil(blocks / ranks) * block
    return (*(min(count, rank * share) for rank in range(ranks)), count)


def parts(values: Tensor, cuts: Sequence[int]) -> list[Tensor]:
    """Return the values between each two cuts, as views; the first value is at cuts[0]."""
    return [values[a - cuts[0] : b - cuts[0]] for a, b in pairwise(cuts)]


def decoded(code: Encoder, data: Tensor, count: int, at: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield the values of a part, as `Encoder.decode` returns them, in pieces with their places."""
    if not code.pieced:
        yield slice(0, count), code.decode(data, count, at)
        return
    for piece in chunks(ceil(count / code.block), data.device, code.block):
        start, stop = piece.start * code.block, min(piece.stop * code.block, count)
        coded = data[code.size(start) : code.size(stop)]
        yield slice(start, stop), code.decode(coded, stop - start, at + start)


def as_type(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Return bytes as values of another type, copied, since a part may start at any byte."""
    return data.clone().view(dtype)


class Plain:
    """Values in a floating-point type, one by one: fp32, fp64 or bf16."""

    block, pieced = 1, True

    def __init__(self, dtype: torch.dtype, computed: torch.dtype = torch.float32) -> None:
        """Code values as `dtype`; `computed` is the type of decoded values."""
        self.dtype, self.computed = dtype, computed
        self.exact = dtype.itemsize >= computed.itemsize

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        return [part.view(torch.uint8) for part in parts(values.to(self.dtype), cuts)]

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        return as_type(data, self.dtype).to(self.computed)

    def size(self, count: int, at: int = 0) -> int:
        return self.dtype.itemsize * count

    def cost(self, coded: Sequence[Tensor], count: int) -> tuple[int, int]:
        return self.size(count), 0


class Rowed:
    """Base of the encoders whose blocks all take the same number of bytes, a row each."""

    block: int
    row: int  # bytes of a block with its scales
    exact, pieced = False, True

    def size(self, count: int, at: int = 0) -> int:
        return -(-count // self.block) * self.row

    def cost(self, coded: Sequence[Tensor], count: int) -> tuple[int, int]:
        return self.size(count), 0

    def _blocks(self, values: Tensor) -> Tensor:
        """Return values as float32 blocks (n, block), of which zeros fill up the last."""
        missing = -len(values) % self.block
        filled = pad(values.float(), (0, missing)) if missing else values.float()
        return filled.view(-1, self.block)

    def _shares(self, rows: Tensor, cuts: Sequence[int]) -> list[Tensor]:
        """Return the rows (n, bytes) of all blocks in one part between each two cuts."""
        blocks = [-(-(cut - cuts[0]) // self.block) for cut in cuts]
        return [part.reshape(-1) for part in parts(rows, blocks)]


class Blocks(Rowed):
    """Integers of 8 or 4 bits with one scale for each block of values.

    Symbols: s = the block's largest |x|, as bf16 rounded up; L = 127, or 7 with 4 bits; q =
    round(L x / s), in -L to L; decoded: q s / L. The scale is rounded up so that no |L x / s| is
    above L: nothing is cut off, and the error of a value is at most half a step, s / 2L. Two 4-bit
    integers share a byte. Small blocks have small errors,
    because s is the largest value of the block only, and cost more bytes: 2 for each scale. bf16
    has float32's range of exponents; an fp16 scale would underflow, since updates are small.

    unbiased: q = floor(z + u) with z = L x / s and u uniform on [0, 1). It rounds up with
    probability z - floor(z), so the expected q is z (QSGD, Alistarh et al. 2017). The error of a
    value is larger, up to a step, but it cancels in the mean over clients, so vectors that are used
    once and have no residual are coded this way.
    """

    def __init__(
        self,
        block: int,
        *,
        bits: int = 8,
        unbiased: bool = False,
        computed: torch.dtype = torch.float32,
    ) -> None:
        self.block, self.bits, self.unbiased, self.computed = block, bits, unbiased, computed
        self.most = 2 ** (bits - 1) - 1  # L
        self.row = block * bits // 8 + 2  # bytes of a block with its scale

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        draws = stream(key[0], Purpose.ROUNDING, *key[1:]) if self.unbiased else None
        rows = values.new_empty(-(-len(values) // self.block), self.row, dtype=torch.uint8)
        pieces = list(chunks(len(rows), values.device, self.block))
        # all scales at once, since an operation on few values takes as long as one on many
        scale = rounded_up(torch.cat([largest(self._at(values, piece)) for piece in pieces]))
        rows[:, -2:] = as_bytes(scale)
        for piece in pieces:
            rows[piece, :-2] = self._packed(self._at(values, piece), scale[piece], draws)
        return self._shares(rows, cuts)

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        rows = data.view(-1, self.row)
        values = data.new_empty(len(rows), self.block, dtype=torch.float32)
        scale = as_type(rows[:, -2:].reshape(-1), torch.bfloat16).float()
        step = (scale / self.most)[:, None]
        for piece in chunks(len(rows), data.device, self.block):
            steps = self._unpacked(rows[piece, :-2].contiguous())
            values[piece].copy_(steps).mul_(step[piece])
        return values.view(-1)[:count].to(self.computed)

    def _at(self, values: Tensor, piece: slice) -> Tensor:
        """Return some of the blocks of values (n,)."""
        return self._blocks(values[piece.start * self.block : piece.stop * self.block])

    def _packed(self, x: Tensor, scale: Tensor, draws: torch.Generator | None) -> Tensor:
        """Return the bytes of blocks (n, block) without their scales (n,)."""
        q = quantised(x, scale, self.most, draws)
        return q.view(torch.uint8) if self.bits == 8 else nibbles(q)

    def _unpacked(self, packed: Tensor) -> Tensor:
        """Return L x / s of the values in these bytes, (n, block)."""
        return packed.view(torch.int8) if self.bits == 8 else integers(packed)


def largest(x: Tensor) -> Tensor:
    """Return the largest magnitude in each row of x (n, block)."""
    return x.abs().amax(1)


def quantised(x: Tensor, scale: Tensor, most: int, draws: torch.Generator | None = None) -> Tensor:
    """Return integers from -most to most, int8 like x (n, block), by the bf16 scales of its rows.

    draws: of stochastic rounding; None: to the nearest integer.
    """
    q = in_steps(x, scale, most)
    if draws is None:
        q.round_()
    else:
        q.add_(torch.rand(q.shape, generator=draws).to(q.device)).floor_()
    return q.clamp_(-most, most).to(torch.int8)


def in_steps(x: Tensor, scale: Tensor, most: int) -> Tensor:
    """Return L x / s, up to L = `most`, of rows x (n, block) with bf16 scales s (n,)."""
    # the smallest float avoids 0 / 0: a block of zeros has scale 0, and stays zero
    tiny = torch.finfo(torch.float32).tiny
    return (x / scale.float().clamp_(min=tiny)[:, None]).mul_(most)


def rounded_up(values: Tensor) -> Tensor:
    """Round non-negative float32 values up to bf16."""
    nearest = values.to(torch.bfloat16)
    # for non-negative values the order of bf16 is that of their bit patterns as integers
    above = (nearest.view(torch.int16) + 1).view(torch.bfloat16)
    up = torch.where(nearest.float() < values, above, nearest)
    # beyond the largest bf16, but finite: it is clipped, and not lost with its whole block
    largest = torch.finfo(torch.bfloat16).max
    return torch.where(values.isfinite(), up.clamp(max=largest), nearest)


def as_bytes(values: Tensor) -> Tensor:
    """Return (n,) values of two bytes as (n, 2) uint8."""
    return values.view(torch.uint8).view(-1, 2)


class Sparse:
    """The blocks of another format that are not all zeros, with their numbers.

    For messages that a transform has thinned out. A part is the number of its kept blocks (int32),
    then their numbers (int32 each) or a bit for every block, whichever is shorter, then the values:
    a list is shorter if less than one block in 32 is kept.
    """

    pieced = False

    def __init__(self, inner: Encoder) -> None:
        self.inner, self.block, self.exact = inner, inner.block, inner.exact

    def size(self, count: int, at: int = 0) -> None:
        return None

    def cost(self, coded: Sequence[Tensor], count: int) -> tuple[int, int]:
        kept = sum(self._kept(part) for part in coded)
        blocks = -(-count // self.block)
        return self.inner.size(kept * self.block) or 0, 4 + index_bytes(blocks, kept)

    def _kept(self, data: Tensor) -> int:
        """Return the number of blocks in a part, which its first bytes hold."""
        return int(as_type(data[:4], torch.int32))

    def encode(self, values: Tensor, cuts: Sequence[int], key: Key) -> list[Tensor]:
        return [self._part(part, key) for part in parts(values, cuts)]

    def _part(self, values: Tensor, key: Key) -> Tensor:
        rows = pad(values, (0, -len(values) % self.block)).view(-1, self.block)
        kept = rows.ne(0).any(1)
        index = kept.nonzero()[:, 0].to(torch.int32)
        chosen = rows.index_select(0, index).reshape(-1)
        (coded,) = self.inner.encode(chosen, (0, len(chosen)), key)
        count = torch.tensor([len(index)], dtype=torch.int32, device=values.device)
        listed = bitmap(kept) if index_bytes(len(rows), len(index)) < 4 * len(index) else index
        return torch.cat([count.view(torch.uint8), listed.view(torch.uint8), coded])

    def decode(self, data: Tensor, count: int, at: int = 0) -> Tensor:
        blocks = -(-count // self.block)
        kept = self._kept(data)
        length = index_bytes(blocks, kept)
        if length < 4 * kept:
            index = bits(data[4 : 4 + length], blocks).nonzero()[:, 0]
        else:
            index = as_type(data[4 : 4 + length], torch.int32).long()
        values = self.inner.decode(data[4 + length :], kept * self.block)
        rows = values.new_zeros(blocks, self.block)
        return rows.index_copy_(0, index, values.view(-1, self.block)).view(-1)[:count]


def index_bytes(size: int, kept: int) -> int:
    """Return the bytes that identify `kept` of `size` items: a bit for each, or a list of int32."""
    return min(-(-size // 8), 4 * kept)
