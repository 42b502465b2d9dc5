"""A digest of vectors, computed on their device: ranks compare it in place of the vectors.

Their bytes are words x_i of 64 bits, and the digest of a piece is sum_i w_i x_i mod 2^64. All w_i
are odd, so any single word that differs changes it; they are scrambled, so that several changes
cancel no more often than chance has it. Integers add up alike in any order and on any device.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.exchange.masks import CHUNK

BITS = 52  # of a digest as a number, which float64 holds exactly
WORD = 8  # bytes
ODD = -0x61C8864680B583EB  # 2^64 / golden ratio, as a signed number
MIXERS = ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15))  # of splitmix64: shift, factor


def digest(vectors: Iterable[Tensor], device: torch.device) -> Tensor:
    """Return the digest () int64 of vectors of any type, in their order, without waiting for it."""
    total = torch.zeros((), dtype=torch.int64, device=device)
    for vector in vectors:
        data = vector.detach().contiguous().view(-1).view(torch.uint8)
        weights = _weights(min(-(-len(data) // WORD), CHUNK), device)
        for piece in data.split(WORD * CHUNK):
            words = pad(piece, (0, -len(piece) % WORD)).view(torch.int64)
            total = total * ODD + (words * weights[: len(words)]).sum() + len(piece)
    return total


def as_number(total: Tensor) -> int:
    """Return a digest in BITS bits; this waits for the device."""
    # an odd factor carries every difference into the upper bits, which are kept
    return int(total) * ODD % 2**64 >> (64 - BITS)


def _weights(count: int, device: torch.device) -> Tensor:
    """Return odd numbers without a pattern, int64 (count,); products are modulo 2^64."""
    mixed = torch.arange(1, count + 1, device=device) * ODD
    for shift, factor in MIXERS:
        mixed = (mixed ^ (mixed >> shift)) * factor
    return (mixed ^ (mixed >> 31)) | 1
