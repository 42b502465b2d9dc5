"""Values of one or four bits, packed into bytes and back."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def nibbles(q: Tensor) -> Tensor:
    """Return integers from -8 to 7, (..., 2 n) int8, as bytes (..., n): the first one is lower."""
    pairs = q.view(torch.int16)  # the first one is the lower byte of a pair
    upper = (pairs >> 4).bitwise_and_(240)
    return (pairs & 15).bitwise_or_(upper).to(torch.uint8)


def integers(packed: Tensor) -> Tensor:
    """Return what `nibbles` was given, from -8 to 7: (..., 2 n) int8."""
    pairs = (packed ^ 0x88).to(torch.int16)  # from 0 to 15, one of two in each byte
    return pairs.bitwise_or_(pairs << 4).bitwise_and_(0x0F0F).view(torch.int8).sub_(8)


def bitmap(chosen: Tensor) -> Tensor:
    """Return bool (n,) as one bit each, in whole bytes."""
    lanes = pad(chosen.to(torch.uint8), (0, -len(chosen) % 8)).view(-1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=chosen.device)
    return (lanes * weights).sum(1, dtype=torch.uint8)


def bits(data: Tensor, count: int) -> Tensor:
    """Return what `bitmap` was given, as uint8 (count,), 0 or 1."""
    shifts = torch.arange(8, dtype=torch.uint8, device=data.device)
    return ((data[:, None] >> shifts) & 1).view(-1)[:count]
