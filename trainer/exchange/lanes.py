"""Votes as bytes: counts in lanes of 1, 2, 4, 8 or 32 bits, so that they cost bits and not words.

Only the format is here; a vote alone is exchanged in group.py, one that rides with the values of a
round in reductions/.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, cat, int32, stack, uint8
from torch.nn.functional import pad


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


@dataclass(frozen=True)
class Poll:
    """A vote of clients on n items, as one rank holds it.

    votes: (n,) its counts; most: the largest count that any rank may hold; quorum: the clients that
    must vote for an item. Counts go to an owner of each item, in lanes just wide enough; decisions
    come back as single bits.
    """

    votes: Tensor
    most: int
    quorum: int

    def _share(self, ranks: int) -> int:
        """Return the items of an owner: whole bytes at one bit each, as many for each owner."""
        return -(-len(self.votes) // (8 * ranks)) * 8

    def ballots(self, ranks: int) -> list[Tensor]:
        """Return the bytes for each owner, of one length."""
        padded = pad(self.votes, (0, self._share(ranks) * ranks - len(self.votes)))
        return list(pack(padded, lane_bits(self.most)).tensor_split(ranks))

    def decide(self, ballots: Sequence[Tensor]) -> Tensor:
        """Return the decisions on an owner's items, in bytes, from every rank's ballot for it."""
        bits = lane_bits(self.most)
        totals = stack([unpack(piece.clone(), bits) for piece in ballots]).sum(0)
        return pack(totals >= self.quorum, 1)

    def outcome(self, decisions: Sequence[Tensor]) -> Tensor:
        """Return whether each item has a quorum, bool (n,), from every owner's decisions."""
        return unpack(cat(list(decisions)), 1)[: len(self.votes)].bool()
