"""The plain sum: each rank adds up its clients, one all-reduce adds up the ranks.

Formats that a collective cannot add are in owners.py. Clients on a rank and ranks in a group are
added by the same weighted `+`, so the result does not depend on which rank trains a client, up to
rounding.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from trainer.exchange.encoders import index_bytes
from trainer.exchange.group import Group
from trainer.exchange.message import Delivery, Message, Places, Terms, Vector, gather
from trainer.exchange.reductions.reduction import Exchange, Reduction, Steps


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
            self.sum = terms.like.new_zeros(length)
        else:
            self.sum.zero_()
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
            total.add_(message.vectors[vector.name], alpha=message.sender.factor(vector))
        for vector, union in self.union.items():
            sent = message.vectors[vector.name] != 0
            union |= sent
            self.values.append(sent.count_nonzero())
        self.messages += 1
        return message.vectors if self.terms.report else {}

    def finish(self, places: Places, stop: bool) -> Steps:
        self.sum[-1] = float(stop)
        chosen = self._union(places)
        self._book(chosen)
        compact = any(where.mask is not None for where in chosen.values())
        wire = (self._compacted(chosen) if compact else self.sum).to(self.reduction.dtype)
        yield self.group.all_reduce(wire, self._kinds(chosen))
        total = wire.to(self.sum.dtype)
        if compact:
            for dense, where, piece in self._pieces(total, chosen):
                if where.mask is None:
                    dense.copy_(piece)
                else:
                    dense.zero_().masked_scatter_(where.mask, piece)
        elif total is not self.sum:
            self.sum.copy_(total)
        means = {vector.name: dense for vector, dense in self.parts.items()}
        first = chosen[self.terms.vectors[0]]
        return Delivery(means, first, stop=bool(total[-1] > 0))

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
            told = self.group.vote(torch.cat(list(self.union.values())), most=1, quorum=1)
            sizes = [len(union) for union in self.union.values()]
            for vector, mask in zip(self.union, told.split(sizes), strict=True):
                chosen[vector] = Places(len(mask), mask)
        return chosen

    def _kinds(self, chosen: Mapping[Vector, Places]) -> dict[str, int]:
        kinds = {self.terms.kind: 0, "buffers": 0, "control": 1}
        for vector, where in chosen.items():
            kinds["buffers" if vector.exact else self.terms.kind] += where.count
        return kinds

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
