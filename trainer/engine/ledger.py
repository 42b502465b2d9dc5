"""The totals of the run: the counts of all ranks, added up once a round.

Steps, samples and the dense equivalent follow from who takes part, so every rank computes them.
Bytes are counted by the rank that creates or sends them (trainer/exchange), and time is measured
(clock.py). Both are added up in one small collective, with the numbers of an evaluation if there
is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.exchange.books import none
from trainer.exchange.group import Group
from trainer.exchange.message import Cohort, Participant
from trainer.metrics.catalog import TRAFFIC, Row

FLOAT32 = 4  # bytes of a value in the dense equivalent


@dataclass
class Tally:
    """Counts of work, of all ranks or of one.

    dense: bytes that FedAvg in fp32 would have uploaded for the same rounds; messages: what a
    server and the sampled clients would have sent to each other.
    """

    steps: int = 0
    samples: int = 0
    dense: int = 0
    messages: int = 0

    def add(self, members: Sequence[Participant], parameters: int, messages: int) -> None:
        """Add a round of these clients; parameters: of a dense upload; messages: per client."""
        self.steps += sum(member.steps for member in members)
        self.samples += sum(member.samples for member in members)
        self.dense += FLOAT32 * parameters * len(members)
        self.messages += messages * len(members)

    def include(self, counts: Mapping[str, int]) -> None:
        """Add another tally's counts, by name."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)

    def fill(self, row: Row) -> None:
        """Write the counts into a row."""
        row.local_steps_total, row.samples_total = self.steps, self.samples
        row.messages_total, row.dense_equivalent_bytes_total = self.messages, self.dense


@dataclass
class Ledger:
    """Totals since the start of the run.

    tally: over all ranks; own: of this rank. By rank: samples, and idle, the seconds by which a
    rank's rounds were shorter than the longest rank's. federated: simulated parallel time, the
    seconds of training if a round's clients had run side by side.
    """

    group: Group
    tally: Tally = field(default_factory=Tally)
    own: Tally = field(default_factory=Tally)
    formed: int = 0
    federated: float = 0.0
    payload: dict[str, int] = field(default_factory=none)
    wire: dict[str, int] = field(default_factory=none)
    rank_samples: list[int] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    found: int = 0  # ranks that found in the last round that something was not finite
    wrong: bool = False  # whether this rank did, in the round that is not settled yet
    busy: float = 0.0  # this rank's seconds in the round that is not settled yet
    slowest: float = 0.0  # in that round, the longest turn of a client plus the server's step

    def __post_init__(self) -> None:
        self.rank_samples = self.rank_samples or [0] * self.group.size
        self.idle = self.idle or [0.0] * self.group.size

    def round(self, cohort: Cohort, parameters: int, messages: int) -> None:
        """Count a round of `cohort`, as Tally.add does."""
        self.tally.add(cohort.members, parameters, messages)
        self.own.add(cohort.at(self.group.rank), parameters, messages)
        for member in cohort.members:
            self.rank_samples[member.rank] += member.samples

    def time(self, turns: Sequence[float], server: float) -> None:
        """Record the seconds of this rank's clients in a round, and of the server's step."""
        self.busy = sum(turns)
        self.slowest = max(turns, default=0.0) + server

    def settle(self, numbers: Sequence[float] = ()) -> list[float]:
        """Add up the books of all ranks, and `numbers`; return the sums of the latter.

        Every rank calls it once a round. It is one collective, whose bytes are counted first, so
        that they are part of the sums.
        """
        books, size, rank = self.group.books, self.group.size, self.group.rank
        times = [0.0] * (2 * size)
        times[rank], times[size + rank] = self.busy, self.slowest
        kinds = len(TRAFFIC)
        self.group.count_ring({"control": 8 * (len(numbers) + 2 * kinds + 2 + len(times))})
        counts = [*books.payload.values(), *books.wire.values(), books.formed, self.wrong]
        sums = self.group.sum_numbers([*numbers, *counts, *times], None)
        counts = [round(count) for count in sums[len(numbers) : -2 * size]]
        self.payload = dict(zip(TRAFFIC, counts[:kinds], strict=True))
        self.wire = dict(zip(TRAFFIC, counts[kinds : 2 * kinds], strict=True))
        self.formed, self.found = counts[-2:]
        busy, slowest = sums[-2 * size : -size], sums[-size:]
        self.idle = [idle + max(busy) - own for idle, own in zip(self.idle, busy, strict=True)]
        self.federated += max(slowest)
        self.busy = self.slowest = 0.0
        self.wrong = False
        return sums[: len(numbers)]

    def fill(self, row: Row) -> None:
        """Write the totals of the run into a row, as of the last `settle`."""
        self.tally.fill(row)
        row.federated_time_seconds = self.federated
        row.messages_formed_total = self.formed
        row.payload_bytes_total, row.wire_bytes_total = dict(self.payload), dict(self.wire)
        row.rank_samples_total = {str(rank): n for rank, n in enumerate(self.rank_samples)}
        row.rank_idle_seconds_total = {str(rank): s for rank, s in enumerate(self.idle)}

    def fill_own(self, row: Row) -> None:
        """Write the counts of this rank alone into a row."""
        rank, books = self.group.rank, self.group.books
        self.own.fill(row)
        row.messages_formed_total = books.formed
        row.payload_bytes_total, row.wire_bytes_total = dict(books.payload), dict(books.wire)
        row.rank_samples_total = {str(rank): self.rank_samples[rank]}
        row.rank_idle_seconds_total = {str(rank): self.idle[rank]}

    def state(self) -> dict[str, Any]:
        """Return the part of a checkpoint that is the same on all ranks; `own` is this rank's."""
        return {
            "tally": asdict(self.tally),
            "federated": self.federated,
            "rank_samples": self.rank_samples,
            "idle": self.idle,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""
        self.tally = Tally(**state["tally"])
        self.federated = state["federated"]
        self.rank_samples, self.idle = state["rank_samples"], state["idle"]
