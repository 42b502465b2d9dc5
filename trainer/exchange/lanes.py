"""Small counts in lanes of 1, 2, 4, 8 or 32 bits, so that votes cost bits and not words.

Only the format is here; votes are exchanged in group.py.
"""

from torch import Tensor, int32, stack, uint8


def lane_bits(most: int) -> int:
    """Return the narrowest lane that holds counts up to `most`: 1, 2, 4, 8 or 32 bits."""
    return next(bits for bits in (1, 2, 4, 8, 32) if most < 2**bits)


def pack(counts: Tensor, bits: int) -> Tensor:
    """Pack counts below 2**bits into bytes; lanes under 8 bits must fill whole bytes."""
    if bits == 32:
        return counts.to(int32).view(uint8)
    lanes = counts.to(uint8).view(-1, 8 // bits)
    packed = lanes[:, 0].clone()
    for lane in range(1, 8 // bits):
        packed |= lanes[:, lane] << (lane * bits)
    return packed


def unpack(packed: Tensor, bits: int) -> Tensor:
    """Return the counts that `pack` was given."""
    if bits == 32:
        return packed.view(int32)
    lanes = [(packed >> (lane * bits)) & (2**bits - 1) for lane in range(8 // bits)]
    return stack(lanes, dim=1).view(-1)
