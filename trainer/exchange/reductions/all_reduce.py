"""The plain sum: each rank adds up its clients, one all-reduce adds up the ranks.

Formats that a collective cannot add are in owners.py. Clients on a rank and ranks in a group are
added by the same weighted `+`, so the result does not depend on which rank trains a client, up to
rounding.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from trainer.exchange.encoders import as_type, cut, index_bytes, parts
from trainer.exchange.group import Group, Work
from trainer.exchange.lanes import Poll
from trainer.exchange.masks import gather, scatter
from trainer.exchange.message import Delivery, Message, Places, Terms, Vector
from trainer.exchange.reductions.reduction import Exchange, Reduction, Steps

Sections = Sequence[tuple[str, int]]  # of a buffer, one after another: kind, number of values
Joint = Generator[Work, None, tuple[Tensor, Tensor]]  # values, and what was decided


def between(sections: Sections, start: int, stop: int) -> dict[str, int]:
    """Return how many values of each kind lie between two places of a buffer."""
    kinds = dict.fromkeys([kind for kind, _ in sections], 0)
    begin = 0
    for kind, count in sections:
        kinds[kind] += max(0, min(stop, begin + count) - max(start, begin))
        begin += count
    return kinds


class AllReduce(Reduction):
    """Values in a type that the collective can add, fp32 or fp64.

    No client's message is formed: its payload is what the client would have to upload. sparse: a
    transform thins messages out, so ranks first exchange the places in which any client sends.
    """

    folds = True

    def __init__(self, dtype: torch.dtype, *, sparse: bool = False) -> None:
        self.dtype, self.sparse = dtype, sparse
        self.sum = torch.zeros(0)  # reused from round to round

    def begin(self, group: Group, terms: Terms) -> "Sum":
        length = sum(terms.length(vector) for vector in terms.vectors) + 1
        if len(self.sum) != length or self.sum.dtype != terms.like.dtype:
            self.sum = terms.like.new_empty(length)
        return Sum(self, group, terms)


class Sum(Exchange):
    """One buffer: the named vectors one after another, and one more value.

    The last value, the lane, reports that a rank was asked to stop. It costs 4 bytes, and no second
    collective.
    """

    def __init__(self, reduction: AllReduce, group: Group, terms: Terms) -> None:
        self.reduction, self.group, self.terms, self.sum = reduction, group, terms, reduction.sum
        self.messages = 0
        lengths = [terms.length(vector) for vector in terms.vectors]
        pieces = self.sum[:-1].split(lengths)
        self.parts = dict(zip(terms.vectors, pieces, strict=True))
        # where any client of this rank sends a value, and how many values each message has
        self.union = {v: torch.zeros_like(x, dtype=torch.bool) for v, x in self._thin()}
        self.values: list[Tensor] = []

    def _thin(self) -> list[tuple[Vector, Tensor]]:
        if not self.reduction.sparse:
            return []
        return [(v, x) for v, x in self.parts.items() if v.adds_up]

    def add(self, message: Message) -> Mapping[str, Tensor]:
        for vector, total in self.parts.items():
            values, factor = message.vectors[vector.name], message.sender.factor(vector)
            if self.messages:
                total.add_(values, alpha=factor)
            else:  # the sum still holds what the last round left in it
                torch.mul(values, factor, out=total)
        for vector, union in self.union.items():
            sent = message.vectors[vector.name] != 0
            union |= sent
            self.values.append(sent.count_nonzero())
        self.messages += 1
        return message.vectors if self.terms.report else {}

    def finish(self, places: Places, stop: bool, poll: Poll | None = None) -> Steps:
        if not self.messages:
            self.sum.zero_()
        self.sum[-1] = float(stop)
        chosen = self._union(places)
        self._book(chosen)
        compact = any(where.mask is not None for where in chosen.values())
        wire = (self._compacted(chosen) if compact else self.sum).to(self.reduction.dtype)
        decided = None
        if poll is None or self.group.size == 1:
            yield self.group.all_reduce(wire, self._kinds(chosen))
            decided = self.group.vote(poll) if poll else None  # of one rank: nothing is sent
        else:
            wire, decided = yield from self._with_votes(wire, self._sections(chosen), poll)
        total = wire.to(self.sum.dtype)
        if compact:
            for dense, where, piece in self._pieces(total, chosen):
                if where.mask is None:
                    dense.copy_(piece)
                else:
                    scatter(piece, where.mask, dense)
        elif total is not self.sum:
            self.sum.copy_(total)
        means = {vector.name: dense for vector, dense in self.parts.items()}
        first = chosen[self.terms.vectors[0]]
        return Delivery(means, first, stop=bool(total[-1] > 0), decided=decided)

    def _with_votes(self, wire: Tensor, sections: Sections, poll: Poll) -> Joint:
        """Add up the values at owners of shares, who count votes too: a ring cannot add a few bits.

        A share's owner adds the ranks in their order. Both together are the two collectives that a
        vote alone takes, and as many bytes as those and the ring.
        """
        group, ranks = self.group, range(self.group.size)
        cuts = cut(len(wire), 1, group.size)
        mine, ballots = group.rank, poll.ballots(group.size)
        own = between(sections, cuts[mine], cuts[mine + 1])
        kinds = {kind: n - own[kind] for kind, n in between(sections, 0, len(wire)).items()}
        width, length = wire.element_size(), len(ballots[0])
        shares = [part.view(torch.uint8) for part in parts(wire, cuts)]
        work, received = group.all_to_all(
            [list(box) for box in zip(shares, ballots, strict=True)],
            [len(shares[mine]) + length] * group.size,
            {kind: width * n for kind, n in kinds.items()} | {"votes": (group.size - 1) * length},
        )
        yield work
        total = torch.zeros_like(wire[cuts[mine] : cuts[mine + 1]])
        for data in received:
            total += as_type(data[: len(data) - length], wire.dtype)
        decided = poll.decide([data[len(data) - length :] for data in received])
        length = len(decided)
        work, pieces = group.gather(
            torch.cat([total.view(torch.uint8), decided]),
            [len(shares[rank]) + length for rank in ranks],
            {kind: width * n for kind, n in own.items()} | {"votes": length},
        )
        yield work
        values = torch.cat([as_type(piece[: len(piece) - length], wire.dtype) for piece in pieces])
        return values, poll.outcome([piece[len(piece) - length :] for piece in pieces])

    def _pieces(
        self, compact: Tensor, chosen: Mapping[Vector, Places]
    ) -> Iterator[tuple[Tensor, Places, Tensor]]:
        """Yield each dense vector, its places, and its piece of a compact buffer with a lane."""
        counts = [chosen[vector].count for vector in self.parts]
        pieces = compact[:-1].split(counts)
        return zip(self.parts.values(), chosen.values(), pieces, strict=True)

    def _compacted(self, chosen: Mapping[Vector, Places]) -> Tensor:
        """Return the values that travel, and the lane."""
        buffer = self.sum.new_empty(sum(where.count for where in chosen.values()) + 1)
        for dense, where, piece in self._pieces(buffer, chosen):
            if where.mask is None:
                piece.copy_(dense)
            else:
                gather(dense, where.mask, piece)
        buffer[-1] = self.sum[-1]
        return buffer

    def _union(self, places: Places) -> dict[Vector, Places]:
        """Return the places of each vector: the round's, or those where any client sends."""
        chosen = {}
        for vector, dense in self.parts.items():
            chosen[vector] = Places(len(dense)) if vector.exact else places
        if self.union and self.terms.cohort.members:
            told = self.group.vote(Poll(torch.cat(list(self.union.values())), most=1, quorum=1))
            sizes = [len(union) for union in self.union.values()]
            for vector, mask in zip(self.union, told.split(sizes), strict=True):
                chosen[vector] = Places(len(mask), mask)
        return chosen

    def _sections(self, chosen: Mapping[Vector, Places]) -> Sections:
        """Return the kind of traffic and the number of values of each piece of the buffer."""
        kinds = [
            ("buffers" if vector.exact else self.terms.kind, where.count)
            for vector, where in chosen.items()
        ]
        return [*kinds, ("control", 1)]

    def _kinds(self, chosen: Mapping[Vector, Places]) -> dict[str, int]:
        sections = self._sections(chosen)
        return {self.terms.kind: 0, "buffers": 0} | between(
            sections, 0, sum(count for _, count in sections)
        )

    def _book(self, chosen: Mapping[Vector, Places]) -> None:
        """Count what this rank's clients would have to upload."""
        size, books = self.reduction.dtype.itemsize, self.group.books
        for vector, where in chosen.items():
            if vector.exact:
                books.upload({"buffers": self.messages * size * where.count})
            elif vector not in self.union:
                books.upload({self.terms.kind: self.messages * size * where.count})
        for values in (int(count) for count in self.values):
            books.upload({self.terms.kind: size * values})
            books.upload({"votes": index_bytes(self.terms.size, values)})
