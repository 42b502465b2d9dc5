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
from trainer.exchange.digest import BITS
from trainer.exchange.mesh import Mesh
from trainer.exchange.message import Cohort, Participant
from trainer.metrics.catalog import Row
from trainer.workers.worker import Passes

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


MARK_BITS = 20  # of a digest, compared in each round
RATE, TICKS = 2000, 2**26  # ticks a second; two numbers of ticks are one float64 without loss


def packed(busy: float, slowest: float) -> float:
    """Return two durations as one number, in ticks, of at most 9 hours each."""
    first, second = (min(round(RATE * seconds), TICKS - 1) for seconds in (busy, slowest))
    return float(TICKS * first + second)


def unpacked(number: float) -> tuple[float, float]:
    """Return the durations in seconds that `packed` was given."""
    first, second = divmod(round(number), TICKS)
    return first / RATE, second / RATE


@dataclass
class Ledger:
    """Totals since the start of the run.

    tally: over all ranks; own: of this rank. By rank, or by pipeline of ranks: samples, and idle,
    the seconds by which its rounds were shorter than the longest one's. federated: simulated
    parallel time, the seconds of training if a round's clients had run side by side.
    """

    mesh: Mesh
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
    digest: int | None = None  # of what this rank holds like the others; None: nothing is compared
    digests: list[int] = field(default_factory=list)  # of all ranks, if the last `settle` saw two
    busy: float = 0.0  # this rank's seconds in the round that is not settled yet
    slowest: float = 0.0  # in that round, the longest turn of a client plus the server's step
    passes: Passes = Passes()  # of this rank's gradients in that round
    all_passes: Passes = Passes()  # of all ranks in the last settled round that had any
    own_passes: Passes = Passes()  # of this rank, likewise

    def __post_init__(self) -> None:
        self.rank_samples = self.rank_samples or [0] * self.mesh.group.size
        self.idle = self.idle or [0.0] * self.mesh.group.size

    @property
    def speaks(self) -> bool:
        """Whether this rank counts what its model's stages do together: the first one does."""
        return self.mesh.line.rank == 0

    def round(self, cohort: Cohort, parameters: int, messages: int) -> None:
        """Count a round of `cohort`, as Tally.add does."""
        self.tally.add(cohort.members, parameters, messages)
        if self.speaks:
            self.own.add(cohort.at(self.mesh.group.rank), parameters, messages)
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
        world, books = self.mesh.world, self.mesh.world.books
        size, rank = self.mesh.group.size, self.mesh.group.rank
        times = [0.0] * size
        if self.speaks:
            times[rank] = packed(self.busy, self.slowest)
        marks = self._marks()
        formed = books.formed if self.speaks else 0
        passes = self.passes if self.mesh.pipelined else ()
        length = len(books.payload) + len(books.wire) + 2
        size_of_all = len(numbers) + len(passes) + length + len(times) + len(marks)
        world.count_ring({"control": 8 * size_of_all})
        counts = [*books.payload.values(), *books.wire.values(), formed, self.wrong]
        sums = world.sum_numbers([*numbers, *passes, *counts, *times, *marks], None)
        self.digests = []
        if not self._alike([sums.pop() for _ in marks][::-1]):
            self.tell_digests()
        counts = [round(count) for count in sums[-size - length : -size]]
        kinds = len(books.payload)
        self.payload = dict(zip(books.payload, counts[:kinds], strict=True))
        self.wire = dict(zip(books.wire, counts[kinds:-2], strict=True))
        self.formed, self.found = counts[-2:]
        if passes:
            self._pass(Passes(*sums[len(numbers) :][: len(passes)]))
        busy, slowest = zip(*map(unpacked, sums[-size:]), strict=True)
        self.idle = [idle + max(busy) - own for idle, own in zip(self.idle, busy, strict=True)]
        self.federated += max(slowest)
        self.busy = self.slowest = 0.0
        self.wrong = False
        return sums[: len(numbers)]

    def _marks(self) -> list[float]:
        """Return 20 bits of this rank's digest, and their square, in the place of its stage."""
        if self.digest is None:
            return []
        mark = float(self.digest >> (BITS - MARK_BITS))  # the upper bits depend on all vectors
        stage = self.mesh.line.rank
        marks = [0.0] * (2 * self.mesh.line.size)
        marks[2 * stage : 2 * stage + 2] = mark, mark * mark
        return marks

    def _alike(self, sums: Sequence[float]) -> bool:
        """Whether all ranks of each stage have the same mark, by the sums of marks and of squares.

        n times the sum of d^2 is (sum of d)^2 only if all n are the same (Cauchy-Schwarz). So two
        numbers are enough for any number of ranks, and exact for up to 2^13.
        """
        ranks = self.mesh.group.size
        pairs = zip(sums[::2], sums[1::2], strict=True)
        return all(ranks * round(squares) == round(total) ** 2 for total, squares in pairs)

    def tell_digests(self) -> None:
        """Have every rank learn the whole digests of all, if there are any; every rank calls it."""
        if self.digest is not None:
            world = self.mesh.world
            told = [0.0] * world.size
            told[world.rank] = float(self.digest)
            self.digests = [round(own) for own in world.sum_numbers(told, "control")]

    def _pass(self, total: Passes) -> None:
        """Note what is known of a round's gradients, unless there were none."""
        self.all_passes = total if total.steps else self.all_passes
        self.own_passes = self.passes if self.passes.steps else self.own_passes
        self.passes = Passes()

    def fill(self, row: Row) -> None:
        """Write the totals of the run into a row, as of the last `settle`."""
        self.tally.fill(row)
        row.federated_time_seconds = self.federated
        row.messages_formed_total = self.formed
        row.payload_bytes_total, row.wire_bytes_total = dict(self.payload), dict(self.wire)
        row.rank_samples_total = {str(rank): n for rank, n in enumerate(self.rank_samples)}
        row.rank_idle_seconds_total = {str(rank): s for rank, s in enumerate(self.idle)}
        if self.all_passes.steps:
            row.pipeline_idle_ratio = 1 - self.all_passes.own / self.all_passes.all
            row.pipeline_ideal_idle_ratio = self.all_passes.ideal / self.all_passes.steps

    def fill_own(self, row: Row) -> None:
        """Write the counts of this rank alone into a row."""
        rank, books = self.mesh.group.rank, self.mesh.world.books
        self.own.fill(row)
        row.messages_formed_total = books.formed if self.speaks else 0
        row.payload_bytes_total, row.wire_bytes_total = dict(books.payload), dict(books.wire)
        row.rank_samples_total = {str(rank): self.rank_samples[rank]} if self.speaks else {}
        row.rank_idle_seconds_total = {str(rank): self.idle[rank]} if self.speaks else {}
        if self.own_passes.steps:
            row.pipeline_idle_ratio = 1 - self.own_passes.own / self.own_passes.all

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
