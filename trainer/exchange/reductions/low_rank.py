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
Of rows that a policy leaves out nothing is sent: A_k has the others only (factors.py).

Bases and means come from the same bytes on all ranks; what is computed from them is in float64 and
then rounded, since processors add in different orders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainer.config.codecs import LowRank as Settings
from trainer.exchange.encoders import Encoder, cut
from trainer.exchange.group import Group
from trainer.exchange.lanes import Poll
from trainer.exchange.message import Delivery, Message, Places, Report, Terms, Vector
from trainer.exchange.ragged import Ragged
from trainer.exchange.reductions.budget import Budget
from trainer.exchange.reductions.factors import Formats, Table, tables
from trainer.exchange.reductions.owners import Segment, Shares, uncoded
from trainer.exchange.reductions.reduction import Exchange, Reduction, Steps
from trainer.keys import Purpose, stream
from trainer.layout import Layout

SPANNED = 1e-6  # of the longest column: what is left of one that is spanned by others
LEFT, RIGHT, REST = ".left", ".right", ".rest"  # of a vector's name: its factors, and what has none


class LowRank(Reduction):
    """Factors of matrices; what has none, and what is exact, travels with the first of them."""

    trips = 2
    masks = False  # an element's error reaches its whole row and column

    def __init__(self, settings: Settings, layout: Layout, seed: int) -> None:
        self.seed, self.formats = seed, Formats(layout, settings)
        self.bases: dict[str, list[Tensor]] = {}  # Q of each matrix, by vector
        self.budget: Budget | None = None
        if settings.budget is not None:
            self.budget = Budget(settings, list(tables(layout, 1)), layout.size)
            self.formats.lay_out(self.budget.tables())

    def basis(self, name: str, like: Tensor) -> list[Tensor]:
        """Return the bases Q (m, r) of a vector's matrices; random ones before its first round."""
        if name not in self.bases:
            draws = [
                torch.randn(m.columns, m.rank, generator=stream(self.seed, Purpose.BASIS, m.key))
                for m in self.formats.whole.matrices
            ]
            self.bases[name] = [draw.to(like) for draw in draws]
        return self.bases[name]

    def begin(self, group: Group, terms: Terms) -> "Factors":
        return Factors(self, group, terms)

    def decisive(self) -> Sequence[Tensor]:
        flat = [basis.view(-1) for bases in self.bases.values() for basis in bases]
        return [torch.cat(flat)] if flat else []

    def learn(self, number: int, factors: Mapping[str, list[Tensor]], told: bool) -> None:
        """Let the budget decide about ranks, from the second factors of a round's means by vector.

        told: whether this rank writes down what was decided.
        """
        if self.budget is None or not all(
            f.isfinite().all() for own in factors.values() for f in own
        ):
            return  # a run that diverges is judged elsewhere
        if not self.budget.spend(number, list(factors.values()), told):
            return
        self.formats.lay_out(self.budget.tables())
        for name, found in factors.items():
            self.bases[name] = [
                self._resized(basis, factor, matrix)
                for basis, factor, matrix in zip(
                    self.bases[name], found, self.formats.whole.matrices, strict=True
                )
            ]

    def _resized(self, basis: Tensor, factor: Tensor, matrix: Table) -> Tensor:
        """Return the basis with the columns that a matrix has now: the longest stay."""
        have, want = basis.shape[1], matrix.full_rank
        if want < have:
            if factor.shape[1] < have:  # rows that travelled were too few for all
                return basis[:, :want].contiguous()
            longest: Tensor = torch.linalg.svd(factor.double(), full_matrices=False).U[:, :want]
            return orthonormal(longest.to(basis.dtype), basis[:, :want])
        if want == have:
            return basis
        draws = stream(self.seed, Purpose.BASIS, matrix.key, want)
        more = torch.randn(matrix.columns, want - have, generator=draws).to(basis)
        grown = torch.cat([basis, more], 1)
        return orthonormal(grown, grown)

    def state(self) -> dict[str, Any]:
        own = {} if self.budget is None else {"budget": self.budget.state()}
        return {"bases": self.bases, **own}

    def load(self, state: Mapping[str, Any]) -> None:
        self.bases = {name: list(bases) for name, bases in state["bases"].items()}
        if self.budget is not None:
            self.budget.load(state["budget"])
            self.formats.lay_out(self.budget.tables())
            matrices = self.formats.whole.matrices
            for name, found in self.bases.items():  # other bits may leave room for fewer columns
                pairs = zip(found, matrices, strict=True)
                self.bases[name] = [self._resized(basis, basis, m) for basis, m in pairs]


class Factors(Exchange):
    """The messages of this rank's clients; each is kept until its second factor is known."""

    def __init__(self, reduction: LowRank, group: Group, terms: Terms) -> None:
        self.reduction, self.group, self.terms = reduction, group, terms
        self.coded = [vector for vector in terms.vectors if not vector.exact]
        assert terms.places is not None, "a message is coded once it is known what travels"
        self.format = reduction.formats.of(terms.places)
        for vector in self.coded:
            reduction.basis(vector.name, terms.like)
        segments = [
            self._segment(vector, suffix, code)
            for vector in self.coded
            for suffix, code in ((LEFT, self.format.left), (REST, self.format.plain))
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
        form, vectors = self.format, {}
        for vector in self.coded:
            name, values = vector.name, message.vectors[vector.name]
            bases = self.reduction.basis(name, self.terms.like)
            pairs = zip(form.matrices, bases, strict=True)
            left = [m.of(values) @ first_columns(q, m.rank) for m, q in pairs]
            vectors[name + LEFT] = form.left.padded([p.T for p in left], values)
            rest = [table.of(values) for table in form.rest]
            vectors[name + REST] = form.plain.padded(rest, values)
        exact = {v.name: message.vectors[v.name] for v in self.terms.vectors if v.exact}
        report = self.first.add(Message(message.sender, vectors | exact))
        self.reports[message.sender.client] = report
        self.kept.append(message)
        return None if self.terms.report else {}

    def finish(self, places: Places, stop: bool, poll: Poll | None = None) -> Steps:
        reduction, form = self.reduction, self.format
        first = yield from self.first.finish(places, stop, poll)
        columns = {
            vector.name: [
                orthonormal(p, torch.zeros_like(p))
                for p in form.lefts(first.mean[vector.name + LEFT])
            ]
            for vector in self.coded
        }
        second = Shares(
            self.group,
            replace(self.terms, places=Places(self.terms.size), forms=False),
            [self._segment(vector, RIGHT, form.right) for vector in self.coded],
        )
        rights = {}
        for message in self.kept:
            vectors = {v.name + RIGHT: self._right(message, v, columns) for v in self.coded}
            rights[message.sender.client] = second.add(Message(message.sender, vectors))
        self.kept = []
        delivery = yield from second.finish(places, None)
        mean = {v.name: first.mean[v.name] for v in self.terms.vectors if v.exact}
        factors = {v.name: form.rights(delivery.mean[v.name + RIGHT]) for v in self.coded}
        for name, found in factors.items():
            rest = first.mean[name + REST]
            mean[name] = form.joined(columns[name], found, rest, self.terms.size)
            old = reduction.bases[name]
            reduction.bases[name] = [renewed(was, q) for q, was in zip(found, old, strict=True)]
        reduction.learn(self.terms.cohort.number, factors, self.group.rank == 0)

        def report(client: int) -> dict[str, Tensor]:
            received, own = rights.pop(client), self.reports.pop(client)
            found = {v.name: own[v.name] for v in self.terms.vectors if v.exact}
            for vector in self.coded:
                name = vector.name
                factors = form.rights(received[name + RIGHT])
                rest = own[name + REST]
                found[name] = form.joined(columns[name], factors, rest, self.terms.size)
            return found

        told: Report | None = report if self.terms.report else None
        return Delivery(mean, places, first.stop, told, first.decided)

    def _right(
        self, message: Message, vector: Vector, columns: Mapping[str, list[Tensor]]
    ) -> Tensor:
        """Return the second factors A^T P^ of a client's matrices, in one buffer."""
        values = message.vectors[vector.name]
        pairs = zip(self.format.matrices, columns[vector.name], strict=True)
        return self.format.right.padded([p.T @ m.of(values) for m, p in pairs], values)


def first_columns(basis: Tensor, rank: int) -> Tensor:
    """Return the first columns of a basis (m, r), if a matrix has fewer rows than r."""
    return basis if rank == basis.shape[1] else basis[:, :rank]


def renewed(basis: Tensor, factor: Tensor) -> Tensor:
    """Return the next basis (m, r) from the last one and the second factor of a round, (m, n).

    A direction in which nobody moved stays, as all do if nobody sends, and those beyond n do.
    """
    rank = factor.shape[1]
    own = orthonormal(factor, first_columns(basis, rank))
    return own if rank == basis.shape[1] else torch.cat([own, basis[:, rank:]], 1)


def orthonormal(columns: Tensor, instead: Tensor) -> Tensor:
    """Return orthonormal columns (n, r) that span those given; `instead` (n, r) where they do not.

    In float64, so that ranks agree to the last bit of the float32 that they keep.
    """
    if not columns.numel():
        return columns
    found = torch.linalg.qr(columns.double())
    lengths = found.R.diagonal().abs()
    # rounding alone decides where a column points that the ones before it already span
    spanned = lengths <= SPANNED * lengths.max()
    basis = torch.where(spanned, instead, found.Q.to(columns.dtype))
    return basis.contiguous()  # as a checkpoint holds it, so that its products have the same bits
