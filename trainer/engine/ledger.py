"""The totals of the run: the counts of all ranks, added up once a round.

Steps, samples and the dense equivalent follow from who takes part, so every rank computes them.
Bytes are counted by the rank that creates or sends them (trainer/exchange), and time is measured
(clock.py). Both are added up in one small collective, with the numbers of an evaluation if there
is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from trainer.engine.durations import packed, unpacked
from trainer.exchange.books import Books
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
RANKS = 2**20  # more than there are, so that one number counts those with each of two findings


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
    total: Books = field(default_factory=Books)  # of all ranks, as of the last `settle`
    federated: float = 0.0
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
        """Add up the books of all ranks, and `numbers` of a test; return the sums of the latter.

        Every rank calls it once a round. It is one collective, whose bytes are counted first, so
        that they are part of the sums.
        """
        times = [(0.0, 0.0)] * self.mesh.group.size
        if self.speaks:
            times[self.mesh.group.rank] = self.busy, self.slowest
        told = {
            "numbers": list(numbers),
            "passes": list(self.passes) if self.mesh.pipelined else [],
            "marks": self._marks(),
            "times": packed(times),
        }
        sums = self._totalled(told)
        self.digests = []
        if not self._alike(sums["marks"]):
            self.tell_digests()
        if sums["passes"]:
            self._pass(Passes(*sums["passes"]))
        busy, slowest = zip(*unpacked(sums["times"], len(times)), strict=True)
        self.idle = [idle + max(busy) - own for idle, own in zip(self.idle, busy, strict=True)]
        self.federated += max(slowest)
        self.busy = self.slowest = 0.0
        self.wrong = False
        return sums["numbers"]

    def _totalled(self, told: dict[str, list[float]]) -> dict[str, list[float]]:
        """Return the sums of the numbers told, by name, and take those of the ranks' counts.

        Counts that were zero on all ranks do not travel. A rank that has one says so in the number
        that also says whether it found something wrong; then all make the sums anew, of all counts.
        """
        world, names = self.mesh.world, [n for n, total in self.total.counts().items() if total]
        while True:
            tests, rest = len(told["numbers"]), sum(map(len, told.values())) + 1 + len(names)
            world.count_ring({"evaluation": 8 * tests, "control": 8 * (rest - tests)})
            own = world.books.counts()
            if not self.speaks:
                own["messages", "formed"] = 0
            unnamed = any(count for name, count in own.items() if name not in names)
            parts = told | {
                "found": [self.wrong + RANKS * unnamed],
                "counts": [own[name] for name in names],
            }
            numbers = [float(number) for part in parts.values() for number in part]
            found = iter(world.sum_numbers(numbers, None))
            sums = {name: list(islice(found, len(part))) for name, part in parts.items()}
            unnamed_of_all, self.found = divmod(round(sums["found"][0]), RANKS)
            if not unnamed_of_all:
                break
            names = list(own)
        self.total.take(dict(zip(names, map(round, sums["counts"]), strict=True)))
        return sums

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
        row.messages_formed_total = self.total.formed
        row.payload_bytes_total = dict(self.total.payload)
        row.wire_bytes_total = dict(self.total.wire)
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
            "total": self.total.state(),
            "federated": self.federated,
            "rank_samples": self.rank_samples,
            "idle": self.idle,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""
        self.tally = Tally(**state["tally"])
        self.total.load(state["total"])
        self.federated = state["federated"]
        self.rank_samples, self.idle = state["rank_samples"], state["idle"]
