"""The reduction for coded messages: each share of a vector has an owner, which codes its mean.

The code itself is an encoder's. Clients' coded shares go to their owners (an all-to-all), each
owner decodes and adds them, and the coded means come back (a gather). With one client on each of W
ranks and B coded bytes, a rank sends (W - 1) / W B in each of the two, together as many as in a
ring all-reduce. A ring, however, would decode, add and code again at each of its W - 1 hops; here
every value is rounded only twice, once by its client and once by its owner.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.exchange.encoders import Encoder, Plain, Sparse, as_type, cut, decoded
from trainer.exchange.group import Group, Work
from trainer.exchange.lanes import Poll
from trainer.exchange.message import Delivery, Message, Participant, Places, Terms, Vector
from trainer.exchange.reductions.reduction import Exchange, Reduction, Steps
from trainer.exchange.reductions.residuals import Residuals

NEAREST = ()  # the key of a mean: it is rounded to the nearest value, alike wherever it is coded
Sizes = list[list[int]]  # of each rank's parts, in bytes
Told = Generator[Work, None, Sizes]
Gathered = Generator[Work, None, tuple[dict[str, Tensor], list[Tensor]]]


@dataclass(frozen=True)
class Segment:
    """A vector in transit: `count` values, cut between blocks into one share for each owner."""

    vector: Vector
    kind: str
    count: int
    up: Encoder
    down: Encoder
    cuts: tuple[int, ...]  # W + 1 of them

    def share(self, rank: int) -> int:
        """Return how many values a rank owns."""
        return self.cuts[rank + 1] - self.cuts[rank]


def as_computed(terms: Terms) -> Encoder:
    """Return the format that loses nothing."""
    return Plain(terms.like.dtype, terms.like.dtype)


def uncoded(vector: Vector, group: Group, terms: Terms) -> Segment:
    """Return the segment of a vector that is exact."""
    code, count = as_computed(terms), terms.length(vector)
    return Segment(vector, "buffers", count, code, code, cut(count, code.block, group.size))


def fixed(sizes: Sequence[int | None]) -> list[int]:
    """Return the sizes of parts, 0 if a size depends on the values and is sent later."""
    return [size or 0 for size in sizes]


class Owners(Reduction):
    """The reduction of all formats that a collective cannot add: bf16 and blocks of integers.

    Each client's message is coded separately, and the owner adds the decoded messages in the order
    of the clients. Floating-point addition is not associative, so only a fixed order makes every
    bit of the result independent of the number of ranks and of which rank trains a client.
    """

    def __init__(
        self,
        code: Encoder,
        once: Encoder,
        *,
        down: Encoder | None = None,
        sparse: bool = False,
        residuals: Residuals | None = None,
    ) -> None:
        """code: for what adds up over rounds; once: for vectors used one time; down: for means.

        down None: as `code`. sparse: a transform thins out what adds up, so only what is not zero
        travels. residuals: what coding costs a mean of what adds up is added to the next one; only
        if no values are left out, since they belong to positions of the whole vector.
        """
        self.code, self.once, self.down = code, once, down or code
        self.sparse, self.residuals = sparse, residuals
        self.masks = residuals is None

    def begin(self, group: Group, terms: Terms) -> "Shares":
        assert terms.places is not None, "a message is coded once it is known what travels"
        segments = list(self._segments(group, terms, terms.places))
        # if nobody sends anything, what is kept stays for the next mean
        return Shares(group, terms, segments, self.residuals if terms.cohort.members else None)

    def gather(self, group: Group) -> None:
        if self.residuals is not None:
            self.residuals.gather(group)

    def state(self) -> dict[str, Any]:
        return self.residuals.state() if self.residuals is not None else {}

    def load(self, state: Mapping[str, Any]) -> None:
        if self.residuals is not None:
            self.residuals.load(state)

    def _segments(self, group: Group, terms: Terms, places: Places) -> Iterator[Segment]:
        for vector in terms.vectors:
            if vector.exact:
                yield uncoded(vector, group, terms)
                continue
            thin = self.sparse and vector.adds_up
            code, mean = (Sparse(c) if thin else c for c in (self.code, self.down))
            up = self.once if vector.leftover == "lost" else code
            # "everyone": each client changes its memory by what it sent, and the others change
            # their sum of all memories by this mean. If the mean were coded, its error would
            # stay in the sum forever, since no later message contains it. So it is exact.
            down = as_computed(terms) if vector.over == "everyone" else mean
            cuts = cut(places.count, max(up.block, down.block), group.size)
            yield Segment(vector, terms.kind, places.count, up, down, cuts)


class Shares(Exchange):
    """The coded messages of this rank's clients, in one box for each owner."""

    def __init__(
        self,
        group: Group,
        terms: Terms,
        segments: list[Segment],
        residuals: Residuals | None = None,
    ) -> None:
        self.group, self.terms, self.segments, self.residuals = group, terms, segments, residuals
        assert terms.places is not None
        self.places = terms.places
        self.boxes: list[list[Tensor]] = [[] for _ in range(group.size)]
        self.leaving: dict[str, int] = {}  # bytes for other ranks, by kind

    def _key(self, client: int, segment: int) -> tuple[int, ...]:
        """Of the stream that rounds a client's vector, if its format rounds at random."""
        terms = self.terms
        return (terms.seed, terms.cohort.number, terms.purpose, client, segment)

    def add(self, message: Message) -> Mapping[str, Tensor]:
        """Code a message; return, for a report, what the others will decode from it."""
        report: dict[str, Tensor] = {}
        for at, segment in enumerate(self.segments):
            vector = message.vectors[segment.vector.name]
            values = vector if segment.vector.exact else self.places.compact(vector)
            coded = segment.up.encode(values, segment.cuts, self._key(message.sender.client, at))
            for rank, part in enumerate(coded):
                self.boxes[rank].append(part)
                if rank != self.group.rank:
                    self._leaves(segment.kind, part.numel())
            values_bytes, index_bytes = segment.up.cost(coded, len(values))
            self.group.books.upload({segment.kind: values_bytes})
            self.group.books.upload({"votes": index_bytes})
            if self.terms.report:
                report[segment.vector.name] = (
                    vector if segment.up.exact else self._decoded(segment, segment.up, coded)
                )
        self.group.books.formed += self.terms.forms
        return report

    def _leaves(self, kind: str, count: int) -> None:
        self.leaving[kind] = self.leaving.get(kind, 0) + count

    def _decoded(self, segment: Segment, code: Encoder, coded: Sequence[Tensor]) -> Tensor:
        """Decode all shares of a segment into a dense vector."""
        shares = [
            code.decode(part, segment.share(rank), segment.cuts[rank])
            for rank, part in enumerate(coded)
        ]
        values = torch.cat(shares) if len(shares) > 1 else shares[0]
        return values if segment.vector.exact else self.places.spread(values)

    def finish(self, places: Places, stop: bool | None, poll: Poll | None = None) -> Steps:
        """As Exchange.finish; stop None: another exchange of the round says it."""
        ranks = range(self.group.size)
        members = [self.terms.cohort.at(rank) for rank in ranks]
        mine = self.group.rank
        known = [s.up.size(s.share(mine), s.cuts[mine]) for s in self.segments]
        sizes = [fixed(known) * len(members[rank]) for rank in ranks]
        if None in known:
            sizes = yield from self._tell(self.boxes, [len(rank) for rank in sizes])
        said = [] if stop is None else [stop]
        note = torch.tensor(said, dtype=torch.uint8, device=self.group.device)
        ballots = poll.ballots(self.group.size) if poll else [note[:0]] * self.group.size
        ends = [len(ballots[0]), len(note)]
        self._leaves("votes", (self.group.size - 1) * ends[0])
        self._leaves("control", (self.group.size - 1) * ends[1])
        boxes, self.boxes = self.boxes, []
        work, received = self.group.all_to_all(
            [[*box, ballot, note] for box, ballot in zip(boxes, ballots, strict=True)],
            [sum(rank) + sum(ends) for rank in sizes],
            self.leaving if self.group.size > 1 else {},
        )
        del boxes  # what is under way is a copy
        yield work
        tails = [data[sum(rank) :].split(ends) for data, rank in zip(received, sizes, strict=True)]
        arrived = self._arrived(received, sizes, members)
        stopping = any(bool(note.any()) for _, note in tails)
        decided = poll.decide([ballot for ballot, _ in tails]) if poll else None
        coded = [self._coded(s, self._mean(at, s, arrived)) for at, s in enumerate(self.segments)]
        means, decisions = yield from self._gathered(
            coded, note[:0] if decided is None else decided
        )
        outcome = poll.outcome(decisions) if poll else None
        return Delivery(means, self._travelled(means), stopping, decided=outcome)

    def _travelled(self, means: Mapping[str, Tensor]) -> Places:
        """The places of the first vector; of a thinned one those that the mean changes."""
        first = self.segments[0]
        if not isinstance(first.down, Sparse):
            return self.places
        return Places(self.terms.size, means[first.vector.name] != 0)

    def _tell(self, boxes: Sequence[Sequence[Tensor]], counts: Sequence[int]) -> Told:
        """Exchange the sizes of the parts that each rank is about to send."""
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
        """Return the bytes of each (client, segment) in this rank's share."""
        arrived = {}
        for data, rank_sizes, rank_members in zip(received, sizes, members, strict=True):
            pieces = iter(data[: sum(rank_sizes)].split(rank_sizes))
            for member in rank_members:
                for at in range(len(self.segments)):
                    arrived[member.client, at] = next(pieces)
        return arrived

    def _mean(self, at: int, segment: Segment, arrived: dict[tuple[int, int], Tensor]) -> Tensor:
        """Return the weighted sum over clients in this rank's share, one client after another."""
        count, start = segment.share(self.group.rank), segment.cuts[self.group.rank]
        total = self.terms.like.new_empty(count)
        members = self.terms.cohort.members  # in the order of clients, not of ranks
        received = [decoded(segment.up, arrived.pop((m.client, at)), count, start) for m in members]
        if not members:
            return total.zero_()
        first, *factors = [m.factor(segment.vector) for m in members]
        for (place, values), *others in zip(*received, strict=True):  # the same places of all
            torch.mul(values, first, out=total[place])
            for (_, values), factor in zip(others, factors, strict=True):
                total[place].add_(values, alpha=factor)
        return total

    def _coded(self, segment: Segment, mean: Tensor) -> Tensor:
        """Code the mean of this rank's share, and what coding has cost the means before it."""
        mine, cuts = self.group.rank, segment.cuts
        kept = None
        if self.residuals is not None and segment.vector.adds_up:
            kept = self.residuals.share(segment.vector.name, cuts, mine, mean)
            mean.add_(kept)
        (data,) = segment.down.encode(mean, cuts[mine : mine + 2], NEAREST)
        if kept is not None:
            kept.copy_(mean - segment.down.decode(data, len(mean), cuts[mine]))
        return data

    def _gathered(self, coded: list[Tensor], decided: Tensor) -> Gathered:
        """Exchange the coded means and what was decided on this rank's part of a poll."""
        ranks = range(self.group.size)
        known = [
            [s.down.size(s.share(rank), s.cuts[rank]) for s in self.segments] for rank in ranks
        ]
        sizes = [fixed(rank) for rank in known]
        if None in known[0]:
            sizes = yield from self._tell([coded] * len(ranks), [len(coded)] * len(ranks))
        kinds = {"votes": len(decided)}
        for segment, part in zip(self.segments, coded, strict=True):
            kinds[segment.kind] = kinds.get(segment.kind, 0) + part.numel()
        sizes = [[*rank, len(decided)] for rank in sizes]
        piece = torch.cat([*coded, decided])
        work, received = self.group.gather(piece, [sum(rank) for rank in sizes], kinds)
        yield work
        shares = [data.split(rank) for data, rank in zip(received, sizes, strict=True)]
        means = {
            s.vector.name: self._decoded(s, s.down, [shares[rank][at] for rank in ranks])
            for at, s in enumerate(self.segments)
        }
        return means, [share[-1] for share in shares]
