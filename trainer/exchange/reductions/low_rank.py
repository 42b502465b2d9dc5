"""The reduction by low rank: matrices travel as two thin factors, of which all clients share one.

PowerSGD (Vogels, Karimireddy, Jaggi, NeurIPS 2019) for clients' updates, with its factors coded in
few bits (as in LQ-SGD), in both directions. Symbols: A_k (n x m) = a tensor of client k's message,
seen as a matrix (out x rest); r = rank; w_k = weight; Q (m x r) = the agreed basis of the last
round; C = coding. One round, in two exchanges:

    P   = C(sum_k w_k C(A_k Q));  P^ = orthonormal columns of P       all matrices in one buffer
    q_k = C(A_k^T P^);            M = C(sum_k w_k q_k)                likewise
    U   = P^ M^T                  the mean;  P^ q_k^T: what the others received of client k
    Q   <- orthonormal columns of M

It is one step of a power iteration towards the mean's largest singular directions, and Q starts the
next one, so the basis follows what the updates have in common. Everything after P^ is linear in
q_k, so the mean is the weighted sum of what clients are told was received; what was not is theirs
to keep (error feedback). Tensors for which r (n + m) >= n m, biases for one, are coded as they are.

Bases and means come from the same bytes on all ranks; what is computed from them is in float64 and
then rounded, since processors add in different orders.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar
from zlib import crc32

import torch
from torch import Tensor

from trainer.config.codecs import LowRank as Settings
from trainer.exchange.encoders import Encoder, cut
from trainer.exchange.group import Group
from trainer.exchange.lanes import Poll
from trainer.exchange.message import Delivery, Message, Places, Report, Terms, Vector
from trainer.exchange.ragged import Ragged
from trainer.exchange.reductions.owners import Segment, Shares, uncoded
from trainer.exchange.reductions.reduction import Exchange, Reduction, Steps
from trainer.keys import Purpose, stream
from trainer.layout import Layout

SPANNED = 1e-6  # of the longest column: what is left of one that is spanned by others
LEFT, RIGHT, REST = ".left", ".right", ".rest"  # of a vector's name: its factors, and what has none


@dataclass(frozen=True)
class Matrix:
    """A tensor that travels as factors: its place in the vector, n x m, and its rank.

    key: of the draws of its first basis, by its name, so that stages of a pipeline change nothing.
    """

    key: int
    place: slice
    rows: int  # n
    columns: int  # m
    rank: int

    def of(self, vector: Tensor) -> Tensor:
        """Return the matrix (n, m) in a vector (P,), as a view."""
        return vector[self.place].view(self.rows, self.columns)


def matrices(layout: Layout, rank: int) -> Iterator[Matrix]:
    """Yield the tensors for which factors have fewer values than they have."""
    for piece in layout.pieces:
        if len(piece.shape) > 1:
            rows, columns = piece.shape[0], prod(piece.shape[1:])
            own = min(rank, rows, columns)
            if own * (rows + columns) < rows * columns:
                yield Matrix(crc32(piece.name.encode()), piece.place, rows, columns, own)


class LowRank(Reduction):
    """Factors of matrices; what has none, and what is exact, travels with the first of them."""

    trips = 2
    masks: ClassVar[bool] = False  # an element's error reaches its whole row and column

    def __init__(self, settings: Settings, layout: Layout, seed: int) -> None:
        self.seed = seed
        self.matrices = list(matrices(layout, settings.rank))
        own = {m.place.start for m in self.matrices}
        self.rest = [p.place for p in layout.pieces if p.place.start not in own]
        self.left, self.right = (
            Ragged([m.rank * side for m, side in sizes], settings.block, settings.bits)
            for sizes in (
                [(m, m.rows) for m in self.matrices],
                [(m, m.columns) for m in self.matrices],
            )
        )
        lengths = [place.stop - place.start for place in self.rest]
        self.plain = Ragged(lengths, settings.block, max(settings.bits, 8))
        self.bases: dict[str, list[Tensor]] = {}  # Q of each matrix, by vector

    def basis(self, name: str, like: Tensor) -> list[Tensor]:
        """Return the bases Q (m, r) of a vector's matrices; random ones before its first round."""
        if name not in self.bases:
            draws = [
                torch.randn(m.columns, m.rank, generator=stream(self.seed, Purpose.BASIS, m.key))
                for m in self.matrices
            ]
            self.bases[name] = [draw.to(like) for draw in draws]
        return self.bases[name]

    def begin(self, group: Group, terms: Terms) -> "Factors":
        return Factors(self, group, terms)

    def decisive(self) -> Sequence[Tensor]:
        flat = [basis.view(-1) for bases in self.bases.values() for basis in bases]
        return [torch.cat(flat)] if flat else []

    def state(self) -> dict[str, Any]:
        return {"bases": self.bases}

    def load(self, state: Mapping[str, Any]) -> None:
        self.bases = {name: list(bases) for name, bases in state["bases"].items()}


class Factors(Exchange):
    """The messages of this rank's clients; each is kept until its second factor is known."""

    def __init__(self, reduction: LowRank, group: Group, terms: Terms) -> None:
        self.reduction, self.group, self.terms = reduction, group, terms
        self.coded = [vector for vector in terms.vectors if not vector.exact]
        for vector in self.coded:
            reduction.basis(vector.name, terms.like)
        segments = [
            self._segment(vector, suffix, code)
            for vector in self.coded
            for suffix, code in ((LEFT, reduction.left), (REST, reduction.plain))
        ]
        segments += [uncoded(vector, group, terms) for vector in terms.vectors if vector.exact]
        self.first = Shares(group, replace(terms, places=Places(terms.size)), segments)
        self.kept: list[Message] = []
        self.reports: dict[int, Mapping[str, Tensor]] = {}  # of the first part, by client

    def _segment(self, vector: Vector, suffix: str, code: Ragged) -> Segment:
        down: Encoder = code
        if vector.over == "everyone" and suffix != LEFT:
            # as in owners.py: what coding a sum of memories loses would stay in it forever; P is
            # only a direction, which all have alike
            down = Ragged(code.lengths, code.block, 32)
        cuts = cut(code.count, code.block, self.group.size)
        part = replace(vector, name=vector.name + suffix)
        return Segment(part, self.terms.kind, code.count, code, down, cuts)

    def add(self, message: Message) -> Mapping[str, Tensor] | None:
        reduction, vectors = self.reduction, {}
        for vector in self.coded:
            name, values = vector.name, message.vectors[vector.name]
            bases = reduction.basis(name, self.terms.like)
            left = [m.of(values) @ q for m, q in zip(reduction.matrices, bases, strict=True)]
            vectors[name + LEFT] = reduction.left.padded([p.T for p in left], values)
            rest = [values[place] for place in reduction.rest]
            vectors[name + REST] = reduction.plain.padded(rest, values)
        exact = {v.name: message.vectors[v.name] for v in self.terms.vectors if v.exact}
        report = self.first.add(Message(message.sender, vectors | exact))
        self.reports[message.sender.client] = report
        self.kept.append(message)
        return None if self.terms.report else {}

    def finish(self, places: Places, stop: bool, poll: Poll | None = None) -> Steps:
        reduction = self.reduction
        first = yield from self.first.finish(places, stop, poll)
        columns = {
            vector.name: [
                orthonormal(p, torch.zeros_like(p))
                for p in self._factors(reduction.left, first.mean[vector.name + LEFT])
            ]
            for vector in self.coded
        }
        second = Shares(
            self.group,
            replace(self.terms, places=Places(self.terms.size), forms=False),
            [self._segment(vector, RIGHT, reduction.right) for vector in self.coded],
        )
        rights = {}
        for message in self.kept:
            vectors = {v.name + RIGHT: self._right(message, v, columns) for v in self.coded}
            rights[message.sender.client] = second.add(Message(message.sender, vectors))
        self.kept = []
        delivery = yield from second.finish(places, False)
        mean = {v.name: first.mean[v.name] for v in self.terms.vectors if v.exact}
        for vector in self.coded:
            name = vector.name
            factors = self._factors(reduction.right, delivery.mean[name + RIGHT])
            mean[name] = self._joined(columns[name], factors, first.mean[name + REST])
            # a direction in which nobody moved stays, as all do if nobody sends
            old = reduction.bases[name]
            reduction.bases[name] = [
                orthonormal(q, was) for q, was in zip(factors, old, strict=True)
            ]

        def report(client: int) -> dict[str, Tensor]:
            received, own = rights.pop(client), self.reports.pop(client)
            found = {v.name: own[v.name] for v in self.terms.vectors if v.exact}
            for vector in self.coded:
                name = vector.name
                factors = self._factors(reduction.right, received[name + RIGHT])
                found[name] = self._joined(columns[name], factors, own[name + REST])
            return found

        told: Report | None = report if self.terms.report else None
        return Delivery(mean, places, first.stop, told, first.decided)

    def _right(
        self, message: Message, vector: Vector, columns: Mapping[str, list[Tensor]]
    ) -> Tensor:
        """Return the second factors A^T P^ of a client's matrices, in one buffer."""
        values = message.vectors[vector.name]
        pairs = zip(self.reduction.matrices, columns[vector.name], strict=True)
        return self.reduction.right.padded([p.T @ m.of(values) for m, p in pairs], values)

    def _factors(self, code: Ragged, joined: Tensor) -> list[Tensor]:
        """Return the factors (n or m, r) in a buffer, which has one column after another."""
        pieces = zip(self.reduction.matrices, code.split(joined), strict=True)
        return [piece.view(m.rank, -1).T for m, piece in pieces]

    def _joined(self, left: list[Tensor], right: list[Tensor], rest: Tensor) -> Tensor:
        """Return the vector (P,) of matrices P^ Q^T and of what has no factors."""
        vector = self.terms.like.new_empty(self.terms.size)
        for matrix, p, q in zip(self.reduction.matrices, left, right, strict=True):
            # in float64, so that it is rounded alike whatever order a processor adds in
            matrix.of(vector).copy_(p.double() @ q.double().T)
        pieces = self.reduction.plain.split(rest)
        for place, values in zip(self.reduction.rest, pieces, strict=True):
            vector[place] = values
        return vector


def orthonormal(columns: Tensor, instead: Tensor) -> Tensor:
    """Return orthonormal columns (n, r) that span those given; `instead` (n, r) where they do not.

    In float64, so that ranks agree to the last bit of the float32 that they keep.
    """
    found = torch.linalg.qr(columns.double())
    lengths = found.R.diagonal().abs()
    # rounding alone decides where a column points that the ones before it already span
    spanned = lengths <= SPANNED * lengths.max()
    basis = torch.where(spanned, instead, found.Q.to(columns.dtype))
    return basis.contiguous()  # as a checkpoint holds it, so that its products have the same bits
