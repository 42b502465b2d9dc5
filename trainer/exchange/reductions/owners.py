"""Coded messages go to the owner of each share of the vector, and its coded mean comes back.

An all-to-all and a gather: the bytes of a ring all-reduce of the coded format, with two roundings
of each value and not one for every rank.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from trainer.exchange.encoders import Encoder, Plain, Sparse, as_type
from trainer.exchange.group import Group, Work
from trainer.exchange.message import Delivery, Message, Participant, Places, Terms, Vector
from trainer.exchange.reductions.reduction import Exchange, Reduction, Steps

NEAREST = ()  # the key of a mean: it is rounded to the nearest value, alike wherever it is coded
Sizes = list[list[int]]  # of each rank's parts, in bytes
Told = Generator[Work, None, Sizes]
Gathered = Generator[Work, None, dict[str, Tensor]]


@dataclass(frozen=True)
class Segment:
    """A vector as it travels: `count` values, cut between blocks into a share for each owner."""

    vector: Vector
    kind: str
    count: int
    up: Encoder
    down: Encoder
    cuts: tuple[int, ...]  # W + 1 of them

    def share(self, rank: int) -> int:
        """How many values a rank owns."""
        return self.cuts[rank + 1] - self.cuts[rank]


def cut(count: int, block: int, ranks: int) -> tuple[int, ...]:
    """Where the owners' shares of `count` values begin and end: always between two blocks."""
    blocks = ceil(count / block)
    share = ceil(blocks / ranks) * block
    return (*(min(count, rank * share) for rank in range(ranks)), count)


def fixed(sizes: Sequence[int | None]) -> list[int]:
    """Sizes of parts, 0 where a size depends on the values and is told later."""
    return [size or 0 for size in sizes]


class Owners(Reduction):
    """One class for every format that a collective cannot add: bf16 and blocks of integers.

    Each client's message is coded by itself, and the owner adds the clients in the clients' order:
    no bit of the result depends on the number of ranks, or on who trains whom.
    """

    def __init__(self, code: Encoder, once: Encoder, *, sparse: bool = False) -> None:
        """code: for what adds up over rounds, and for means; once: for vectors used one time.

        sparse: a transform thins out what adds up, so only what is not zero travels.
        """
        self.code, self.once, self.sparse = code, once, sparse

    def begin(self, group: Group, terms: Terms) -> "Shares":
        assert terms.places is not None, "a message is coded once it is known what travels"
        return Shares(group, terms, list(self._segments(group, terms, terms.places)))

    def _segments(self, group: Group, terms: Terms, places: Places) -> Iterator[Segment]:
        exact: Encoder = Plain(terms.like.dtype, terms.like.dtype)
        for vector in terms.vectors:
            if vector.exact:
                up = down = exact
            else:
                code = Sparse(self.code) if self.sparse and vector.adds_up else self.code
                up = self.once if vector.leftover == "lost" else code
                # what all clients' memories have to add up to arrives as the sum of what was sent
                down = exact if vector.over == "everyone" else code
            count = terms.length(vector) if vector.exact else places.count
            cuts = cut(count, max(up.block, down.block), group.size)
            kind = "buffers" if vector.exact else terms.kind
            yield Segment(vector, kind, count, up, down, cuts)


class Shares(Exchange):
    """Holds what this rank's clients send, coded, in a box for each owner."""

    def __init__(self, group: Group, terms: Terms, segments: list[Segment]) -> None:
        self.group, self.terms, self.segments = group, terms, segments
        assert terms.places is not None
        self.places = terms.places
        self.boxes: list[list[Tensor]] = [[] for _ in range(group.size)]
        self.leaving: dict[str, int] = {}  # bytes for other ranks, by kind

    def _key(self, client: int, segment: int) -> tuple[int, ...]:
        """Of the stream that rounds a client's vector, if its format rounds at random."""
        terms = self.terms
        return (terms.seed, terms.cohort.number, terms.purpose, client, segment)

    def add(self, message: Message) -> Mapping[str, Tensor]:
        """Code a message; what the others get of it is what decoding gives."""
        report: dict[str, Tensor] = {}
        for at, segment in enumerate(self.segments):
            vector = message.vectors[segment.vector.name]
            values = vector if segment.vector.exact else self.places.compact(vector)
            coded = segment.up.encode(values, segment.cuts, self._key(message.sender.client, at))
            for rank, part in enumerate(coded):
                self.boxes[rank].append(part)
                if rank != self.group.rank:
                    self._leaves(segment.kind, part.numel())
            values_bytes, index_bytes = segment.up.cost(values)
            self.group.books.upload({segment.kind: values_bytes})
            self.group.books.upload({"votes": index_bytes})
            if self.terms.report:
                report[segment.vector.name] = (
                    vector if segment.up.exact else self._decoded(segment, segment.up, coded)
                )
        self.group.books.formed += 1
        return report

    def _leaves(self, kind: str, count: int) -> None:
        self.leaving[kind] = self.leaving.get(kind, 0) + count

    def _decoded(self, segment: Segment, code: Encoder, coded: Sequence[Tensor]) -> Tensor:
        """All shares of a segment, dense."""
        values = torch.cat(
            [code.decode(part, segment.share(rank)) for rank, part in enumerate(coded)]
        )
        return values if segment.vector.exact else self.places.spread(values)

    def finish(self, places: Places, stop: bool) -> Steps:
        ranks = range(self.group.size)
        members = [self.terms.cohort.at(rank) for rank in ranks]
        mine = self.group.rank
        known = [s.up.size(s.share(mine)) for s in self.segments]
        sizes = [fixed(known) * len(members[rank]) for rank in ranks]
        if None in known:
            sizes = yield from self._tell(self.boxes, [len(rank) for rank in sizes])
        note = torch.tensor([stop], dtype=torch.uint8, device=self.group.device)  # after the rest
        self._leaves("control", self.group.size - 1)
        boxes, self.boxes = self.boxes, []
        work, received = self.group.all_to_all(
            [[*box, note] for box in boxes],
            [1 + sum(rank) for rank in sizes],
            self.leaving if self.group.size > 1 else {},
        )
        del boxes  # what is under way is a copy
        yield work
        arrived = self._arrived(received, sizes, members)
        stopping = any(bool(data[-1]) for data in received)
        coded = [
            s.down.encode(self._mean(at, s, arrived), (0, s.share(mine)), NEAREST)[0]
            for at, s in enumerate(self.segments)
        ]
        means = yield from self._gathered(coded)
        return Delivery(means, self._travelled(means), stopping)

    def _travelled(self, means: Mapping[str, Tensor]) -> Places:
        """The places of the first vector; of a thinned one those that the mean changes."""
        first = self.segments[0]
        if not isinstance(first.down, Sparse):
            return self.places
        return Places(self.terms.size, means[first.vector.name] != 0)

    def _tell(self, boxes: Sequence[Sequence[Tensor]], counts: Sequence[int]) -> Told:
        """The sizes of what each rank is about to send, where they depend on the values."""
        told = [torch.tensor([p.numel() for p in box], dtype=torch.int32) for box in boxes]
        pieces = [sizes.view(torch.uint8).to(self.group.device) for sizes in told]
        leaving = sum(p.numel() for rank, p in enumerate(pieces) if rank != self.group.rank)
        work, received = self.group.all_to_all(
            [[piece] for piece in pieces], [4 * count for count in counts], {"control": leaving}
        )
        yield work
        return [as_type(data, torch.int32).tolist() for data in received]

    def _arrived(
        self,
        received: Sequence[Tensor],
        sizes: Sizes,
        members: Sequence[Sequence[Participant]],
    ) -> dict[tuple[int, int], Tensor]:
        """The bytes of each (client, segment) in this rank's share."""
        arrived = {}
        for data, rank_sizes, rank_members in zip(received, sizes, members, strict=True):
            pieces = iter(data[:-1].split(rank_sizes))
            for member in rank_members:
                for at in range(len(self.segments)):
                    arrived[member.client, at] = next(pieces)
        return arrived

    def _mean(self, at: int, segment: Segment, arrived: dict[tuple[int, int], Tensor]) -> Tensor:
        """The weighted sum over clients in this rank's share, one client after the other."""
        count = segment.share(self.group.rank)
        total = self.terms.like.new_zeros(count)
        for member in self.terms.cohort.members:  # whoever trained them: no bit depends on it
            values = segment.up.decode(arrived.pop((member.client, at)), count)
            total.add_(values, alpha=member.factor(segment.vector))
        return total

    def _gathered(self, coded: list[Tensor]) -> Gathered:
        ranks = range(self.group.size)
        known = [[s.down.size(s.share(rank)) for s in self.segments] for rank in ranks]
        sizes = [fixed(rank) for rank in known]
        if None in known[0]:
            sizes = yield from self._tell([coded] * len(ranks), [len(coded)] * len(ranks))
        kinds: dict[str, int] = {}
        for segment, part in zip(self.segments, coded, strict=True):
            kinds[segment.kind] = kinds.get(segment.kind, 0) + part.numel()
        work, received = self.group.gather(torch.cat(coded), [sum(rank) for rank in sizes], kinds)
        yield work
        shares = [data.split(rank) for data, rank in zip(received, sizes, strict=True)]
        return {
            s.vector.name: self._decoded(s, s.down, [shares[rank][at] for rank in ranks])
            for at, s in enumerate(self.segments)
        }
