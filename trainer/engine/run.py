"""Owns a rank assembled: everything that its rounds work with, and the clock of their phases."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainer.algorithms.base import Algorithm, Round
from trainer.config.schema import Experiment
from trainer.engine.clients import Clients
from trainer.flat import Flat
from trainer.metrics.catalog import PHASES
from trainer.parallel.single import SingleDevice
from trainer.sync.codec import Codec
from trainer.sync.comm import Comm
from trainer.sync.exchange import Exchange
from trainer.sync.policy import Policy, Selection
from trainer.sync.tally import Tally


@dataclass
class Clock:
    """Seconds spent in each phase since the start of the run."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":  # or its queue's work is charged to a later phase
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    @property
    def training(self) -> float:
        """Seconds of everything but evaluation."""
        return sum(s for name, s in self.seconds.items() if name != "evaluate")


@dataclass
class Run:
    """Everything that a rank trains with, assembled by engine/build.py."""

    experiment: Experiment
    flat: Flat
    anchor: Tensor  # (P,) the agreed model, bit-identical on all ranks
    buffers: Tensor  # (B,) the agreed BatchNorm statistics
    gradient: SingleDevice
    augment: bool
    optimizer: torch.optim.Optimizer
    algorithm: Algorithm
    policy: Policy
    codec: Codec
    comm: Comm
    exchange: Exchange
    survey: Exchange  # of the whole gradients, for algorithms that ask for their mean
    clients: Clients
    x_test: Tensor  # this rank's share of the test set
    y_test: Tensor
    clock: Clock
    tally: Tally  # of the whole run
    own: Tally  # of this rank's clients; wire bytes are counted for the whole run only
    round: Round = field(init=False)
    loss: Tensor = field(init=False)  # sum of the losses of this rank's samples, on the device
    samples: int = 0  # ... and how many samples those are, since the last evaluation

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), device=self.anchor.device)
        self.round = Round(
            number=0,
            anchor=self.anchor,
            params=self.flat.values.data,
            grads=self.flat.grads,
            scratch=torch.empty_like(self.anchor),
            optimizer=self.optimizer,
            clip_norm=self.experiment.optimizer.clip_norm,
        )
        self.round.lr = self.experiment.optimizer.lr
        self.dropout = any(isinstance(m, nn.Dropout) for m in self.flat.model.modules())


@dataclass(frozen=True)
class Played:
    """What a round did."""

    selection: Selection
    clients: int
    stop: bool  # some rank was asked to
