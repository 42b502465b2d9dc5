"""The vocabulary of an exchange: messages of clients, cohorts of a round, and deliveries.

How values are coded or added up is not decided here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from trainer.exchange.masks import indices


@dataclass(frozen=True)
class Vector:
    """A named vector (P,) that clients send, and what may be done to it on the way.

    leftover: what happens to the part that is not sent (masked, or lost in coding). "add": it must
    be added to the client's next vector, as error feedback does for updates of the model; "again":
    the next vector contains it anyway, because it is a difference to what the others hold (EF21);
    "lost": nothing, because the vector is used only once, like a gradient.
    over: what the mean is over. "senders": the clients that sent, by weight; "everyone": 1/N of
    each of the N clients, where a client that sent nothing counts as zero.
    exact: neither masked nor coded, of any length: BatchNorm's buffers.
    """

    name: str
    leftover: Literal["add", "again", "lost"] = "add"
    over: Literal["senders", "everyone"] = "senders"
    exact: bool = False

    @property
    def adds_up(self) -> bool:
        """Is what is not sent of it to be added to the next one?"""
        return self.leftover == "add" and not self.exact


BUFFERS = Vector("buffers", exact=True)  # the change of BatchNorm's statistics (B,)


@dataclass(frozen=True)
class Participant:
    """One sampled client in one round; every rank knows all of them."""

    client: int
    rank: int  # the one that trains it
    weight: float  # in the mean; over a round's participants they sum to 1
    steps: int  # K, local steps
    samples: int  # that these steps take
    everyone: float  # 1 / N

    def factor(self, vector: Vector) -> float:
        """Return the factor of this client's vector in the sum that is the mean."""
        return self.everyone if vector.over == "everyone" else self.weight


@dataclass(frozen=True)
class Cohort:
    """The clients of a round, by number."""

    number: int  # the round
    members: tuple[Participant, ...]

    def at(self, rank: int) -> list[Participant]:
        """Return the members that a rank trains, sorted by client."""
        return [member for member in self.members if member.rank == rank]

    def only(self, clients: set[int]) -> "Cohort":
        """Return the cohort with only these clients, whose weights sum to 1 again."""
        kept = [member for member in self.members if member.client in clients]
        if len(kept) == len(self.members):
            return self
        total = sum(member.weight for member in kept)
        return Cohort(
            self.number, tuple(replace(member, weight=member.weight / total) for member in kept)
        )

    def most(self) -> int:
        """Return the largest number of participants on any one rank."""
        return max(Counter(member.rank for member in self.members).values())


@dataclass
class Message:
    """The message of one client: its named vectors, (P,) each except the exact ones."""

    sender: Participant
    vectors: dict[str, Tensor]
    silent: bool = False  # a transform decided that nothing is sent
    passed: int = 0  # transforms of the chain that it has passed through


@dataclass(frozen=True)
class Places:
    """The coordinates that travel: `count` of `size`, those where `mask` (bool, P) is true.

    mask None: all of them. Use the mask once a round, and `index` for each client or step, because
    branching on a random mask costs a hundred times an index.
    """

    size: int
    mask: Tensor | None = None
    count: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.count < 0:
            count = self.size if self.mask is None else int(self.mask.count_nonzero())
            object.__setattr__(self, "count", count)

    @cached_property
    def index(self) -> Tensor:
        """The coordinates, (count,) int64; only if there is a mask."""
        assert self.mask is not None
        return indices(self.mask)

    def thawed(self, labelled: int) -> int:
        """Return how many of the coordinates that a policy calls frozen travel."""
        return max(0, self.count - (self.size - labelled))

    def compact(self, vector: Tensor) -> Tensor:
        """Return the values of `vector` (P,) that travel: (count,)."""
        return vector if self.mask is None else vector.index_select(0, self.index)

    def spread(self, values: Tensor) -> Tensor:
        """Put (count,) values at their coordinates in a vector of zeros, (P,)."""
        if self.mask is None:
            return values
        return values.new_zeros(self.size).index_copy_(0, self.index, values)


@dataclass(frozen=True)
class Terms:
    """The properties of an exchange that all ranks know before it begins.

    lengths: of the exact vectors; places None: not known yet, so only a reduction that adds up
    first can begin. report: whether any part needs to know which values the others received; forms:
    whether what is coded is a client's message, and not a second part of it.
    """

    cohort: Cohort
    vectors: tuple[Vector, ...]
    size: int  # P
    seed: int
    places: Places | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)
    kind: str = "values"  # of traffic, in the books
    purpose: int = 0  # of the round's exchanges, which: it keys random streams
    report: bool = False
    forms: bool = True
    like: Tensor = field(default_factory=lambda: torch.empty(0))  # type and device of values

    def length(self, vector: Vector) -> int:
        """Return the number of values of a vector as clients send it."""
        return self.lengths[vector.name] if vector.exact else self.size


Report = Callable[[int], Mapping[str, Tensor]]  # of a client of this rank, once: see `add`


@dataclass
class Delivery:
    """The result of an exchange.

    mean: each named vector, dense, bit-identical on every rank, zero where nothing travelled;
    places: the coordinates that arrived; stop: whether any rank was asked to stop; report: what the
    others received of a client's message, if that was not known before (Exchange.add); decided: the
    outcome of the poll that travelled with the values, bool (n,), if there was one.
    """

    mean: dict[str, Tensor]
    places: Places
    stop: bool = False
    report: Report | None = None
    decided: Tensor | None = None
