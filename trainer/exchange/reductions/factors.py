"""What of a vector travels by low rank in a round: factors of matrices, and the rest as it is.

Every tensor is seen as a table (out x rest). A policy may leave out rows of it; those that travel
are a smaller table, which has factors like the whole one. How they are exchanged is in low_rank.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import prod
from zlib import crc32

import torch
from torch import Tensor

from trainer.config.codecs import LowRank as Settings
from trainer.exchange.masks import chunks
from trainer.exchange.message import Places
from trainer.exchange.ragged import Ragged
from trainer.exchange.rows import Rows
from trainer.layout import Layout


@dataclass(frozen=True)
class Table:
    """The rows of a tensor that travel: n of them with m columns, in a vector (P,).

    whole: the tensor's number of rows; rows: the numbers (n,) of those that travel, None: all.
    rank: columns of its factors, 0: it has none.
    """

    name: str
    place: slice
    whole: int
    columns: int  # m
    full_rank: int  # of the whole tensor
    n: int
    rows: Tensor | None = None

    @property
    def key(self) -> int:
        """Of the draws of its basis: by its name, so that stages of a pipeline change nothing."""
        return crc32(self.name.encode())

    @property
    def most(self) -> int:
        """The largest rank with which factors have fewer values than the whole tensor."""
        return (self.whole * self.columns - 1) // (self.whole + self.columns)

    @property
    def rank(self) -> int:
        """Columns of its factors: no more than it has rows."""
        return min(self.full_rank, self.n)

    def of(self, vector: Tensor) -> Tensor:
        """Return the values (n, m) in a vector (P,)."""
        table = vector[self.place].view(self.whole, self.columns)
        return table if self.rows is None else table.index_select(0, self.rows)

    def put(self, vector: Tensor, values: Tensor, some: slice = slice(None)) -> None:
        """Write values (n, m) of float32 or float64 to their places in a vector (P,).

        some: of the n rows, if they are only those.
        """
        table = vector[self.place].view(self.whole, self.columns)
        if self.rows is None:
            table[some].copy_(values)
        else:
            table.index_copy_(0, self.rows[some], values.to(table.dtype))


def tables(layout: Layout, rank: int) -> Iterator[Table]:
    """Yield every tensor; those for which factors have fewer values than they have get a rank."""
    for piece in layout.pieces:
        rows, columns = piece.shape[0] if piece.shape else 1, prod(piece.shape[1:])
        own = min(rank, rows, columns) if len(piece.shape) > 1 else 0
        table = Table(piece.name, piece.place, rows, columns, own, rows)
        yield table if own <= table.most else replace(table, full_rank=0)


class Format:
    """The tables of a round, and the codes of what is sent of them."""

    def __init__(self, found: Sequence[Table], settings: Settings) -> None:
        self.matrices = [table for table in found if table.full_rank]
        self.rest = [table for table in found if not table.full_rank]
        self.left, self.right = (
            Ragged([m.rank * side for m, side in sizes], settings.block, settings.bits)
            for sizes in (
                [(m, m.n) for m in self.matrices],
                [(m, m.columns) for m in self.matrices],
            )
        )
        lengths = [table.n * table.columns for table in self.rest]
        self.plain = Ragged(lengths, settings.block, settings.bits)

    def lefts(self, joined: Tensor) -> list[Tensor]:
        """Return the first factors (n, r) in a buffer, which has one column after another."""
        pieces = zip(self.matrices, self.left.split(joined), strict=True)
        return [piece.view(m.rank, m.n).T for m, piece in pieces]

    def rights(self, joined: Tensor) -> list[Tensor]:
        """Return the second factors (m, r), likewise."""
        pieces = zip(self.matrices, self.right.split(joined), strict=True)
        return [piece.view(m.rank, m.columns).T for m, piece in pieces]

    def joined(
        self, left: Sequence[Tensor], right: Sequence[Tensor], rest: Tensor, size: int
    ) -> Tensor:
        """Return the vector (P,) of matrices P^ Q^T and of what has no factors; else it is 0."""
        full = sum(table.n * table.columns for table in (*self.matrices, *self.rest)) == size
        vector = rest.new_empty(size) if full else rest.new_zeros(size)
        for matrix, p, q in zip(self.matrices, left, right, strict=True):
            # in float64, so that it is rounded alike whatever order a processor adds in
            p, q = p.double(), q.double()
            for some in chunks(matrix.n, vector.device, matrix.columns):
                matrix.put(vector, p[some] @ q.T, some)
        for table, values in zip(self.rest, self.plain.split(rest), strict=True):
            table.put(vector, values.view(table.n, table.columns))
        return vector


class Formats:
    """The formats of a model: that of whole tensors, and those of the rows that travel."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self.settings, self.rows = settings, Rows(layout)
        self.lay_out(list(tables(layout, settings.rank)))

    def lay_out(self, found: Sequence[Table]) -> None:
        """Change the ranks of matrices, for the rounds to come."""
        self.tables, self.whole = list(found), Format(found, self.settings)

    def of(self, places: Places) -> Format:
        """Return the format of a round; its places are whole rows."""
        if places.mask is None:
            return self.whole
        index = self.rows.first(places.mask).nonzero()[:, 0]  # of the rows that travel
        starts = [*accumulate((table.whole for table in self.tables), initial=0)]
        bounds = torch.tensor(starts, device=index.device)
        found = [
            Table(t.name, t.place, t.whole, t.columns, t.full_rank, b - a, index[a:b] - start)
            for t, start, (a, b) in zip(
                self.tables,
                starts,
                pairwise(torch.searchsorted(index, bounds).tolist()),
                strict=False,
            )
        ]
        sent = sum(table.n * table.columns for table in found)
        assert sent == places.count, "what travels by low rank is whole rows"
        return Format(found, self.settings)
