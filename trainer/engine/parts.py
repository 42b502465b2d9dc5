"""The state of one rank: the parts that a round uses, and what changes from round to round.

The parts do not know each other. Which class each one is was decided in trainer/engine/build.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trainer.algorithms.algorithm import Algorithm
from trainer.config.errors import ConfigError
from trainer.config.schema import Experiment
from trainer.engine.clock import Clock
from trainer.engine.cohort import Clients
from trainer.engine.ledger import Ledger
from trainer.engine.pace import Pace
from trainer.engine.status import log
from trainer.engine.store import Store
from trainer.engine.watch import Watch
from trainer.exchange.group import Group
from trainer.exchange.mesh import Mesh, Node
from trainer.exchange.message import BUFFERS, Vector
from trainer.exchange.overlap import Overlap
from trainer.exchange.policies.policy import Policy
from trainer.exchange.reductions.reduction import Reduction
from trainer.exchange.transforms.transform import Transform
from trainer.tasks.task import Task
from trainer.turn import Server
from trainer.workers.worker import Worker


@dataclass
class Parts:
    """The parts of a run: those that learn, and those that exchange."""

    task: Task
    worker: Worker
    algorithm: Algorithm
    policy: Policy
    chain: tuple[Transform, ...]
    reduction: Reduction
    once: Reduction  # for full gradients, which are exchanged before clients train
    mesh: Mesh

    @property
    def group(self) -> Group:
        """The ranks that exchange what clients send: those with this rank's part of the model."""
        return self.mesh.group

    @property
    def world(self) -> Group:
        """All ranks, which must agree on when a run ends and on what a checkpoint is."""
        return self.mesh.world

    @property
    def line(self) -> Group:
        """The ranks that hold one model together: this one alone, or the stages of its pipeline."""
        return self.mesh.line

    @property
    def keep(self) -> bool:
        """Whether any part keeps state of a client between rounds."""
        transforms = any(transform.keeps for transform in self.chain)
        return self.algorithm.keeps or self.policy.keeps or transforms


@dataclass
class Loss:
    """The training loss of this rank's samples since the last evaluation.

    known: whether it is known on this rank, which in a pipeline the last stage is.
    """

    sum: Tensor  # (), on the device, so that adding to it does not wait
    samples: int = 0
    known: bool = True

    def add(self, mean: Tensor, samples: int) -> None:
        """Add a batch's mean loss over so many samples."""
        if not self.known:
            return
        self.sum.add_(mean, alpha=samples)
        self.samples += samples

    def clear(self) -> None:
        """Start again at zero, after an evaluation has reported the loss."""
        self.sum.zero_()
        self.samples = 0


@dataclass
class RankState:
    """One rank of a run: its parts, and what changes from round to round.

    server: the state that all ranks agree on; clients: the progress of each client, also agreed;
    store: the state that clients keep, here or elsewhere; clock, ledger, loss: measurements; watch:
    whether the round's numbers are finite.
    """

    experiment: Experiment
    parts: Parts
    server: Server
    clients: Clients
    store: Store
    clock: Clock
    ledger: Ledger
    loss: Loss = field(init=False)
    accuracy: float | None = None  # of the latest evaluation, the same on every rank
    perplexity: float | None = None  # likewise, of a language model
    notices: list[str] = field(default_factory=list)  # what a person should know of this start
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # since the checkpoint
    watch: Watch = field(default_factory=Watch)
    overlap: Overlap | None = None  # None: every round waits for its own exchange
    node: Node | None = None  # None: clients average only at the end of a round
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.loss = Loss(self.server.anchor.new_zeros(()), known=self.parts.worker.scores)

    def notice(self, text: str) -> None:
        """Have a person told, by the log and by the status record."""
        log.warning("%s", text)
        self.notices.append(text)

    def check_agreement(self) -> None:
        """Raise unless all ranks hold the same agreed model, bit for bit; every rank calls it."""
        if not self.parts.group.all_equal(self.server.anchor):  # no assert: all ranks must call it
            raise RuntimeError("ranks hold different agreed models")

    @property
    def vectors(self) -> tuple[Vector, ...]:
        """All vectors that leave a client: the algorithm's, and BatchNorm's if it is shared."""
        shared = len(self.server.buffers) > 0 and not self.keeps_buffers
        return self.parts.algorithm.vectors + ((BUFFERS,) if shared else ())

    @property
    def keeps_buffers(self) -> bool:
        """Whether each client keeps BatchNorm statistics of its own."""
        return self.experiment.model.buffers == "local" and len(self.server.buffers) > 0

    def drifted(self) -> bool:
        """Return whether clients may differ from the agreed model on any stage; all ranks call it.

        A policy may have frozen values on some stages only, and what follows is done by all.
        """
        parts = self.parts
        own = parts.policy.drifted() is not None or any(t.displaces for t in parts.chain)
        return any(parts.line.sum_numbers([float(own)], "control"))


def refuse(parts: Parts) -> None:
    """Raise a ConfigError if the parts do not fit each other, by what each declares."""
    problem = next(_misfits(parts), None)
    if problem is not None:
        raise ConfigError("experiment", problem)


def _misfits(parts: Parts) -> Iterator[str]:
    reduction, vectors = parts.reduction, parts.algorithm.vectors
    accounting = [type(t).__name__ for t in parts.chain if t.accounts]
    if len(accounting) > 1:
        yield f"{' and '.join(accounting)} would both keep the unsent part; use one of them"
    if parts.policy.excludes and parts.policy.rows is None and not reduction.masks:
        yield (
            f"{type(reduction).__name__} exchanges whole rows, but {type(parts.policy).__name__} "
            "excludes single values; use sync.unit=row, sync.name=full, or another codec"
        )
    if not reduction.linear and any(vector.over == "everyone" for vector in vectors):
        yield (
            f"{type(reduction).__name__} is not a sum, so the state that "
            f"{type(parts.algorithm).__name__} keeps of its clients would not add up; use another "
            "codec"
        )
