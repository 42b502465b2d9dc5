"""Time of this rank: by phase since the start of the run, and by client in the round."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from trainer.metrics.catalog import PHASES


@dataclass
class Clock:
    """Seconds spent in each phase, and what clients took in the round that is being run."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    turns: dict[int, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)  # seconds as the round began

    def begin_round(self) -> None:
        """No client had its turn yet."""
        self.turns.clear()
        self.began = dict(self.seconds)

    def since_begin(self, name: str) -> float:
        """Seconds spent in a phase in this round."""
        return self.seconds[name] - self.began[name]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge what is done inside to a phase."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":  # or its queue's work is charged to a later phase
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    @contextmanager
    def turn(self, client: int) -> Iterator[None]:
        """Charge what is done inside to local training, and to a client."""
        start = time.perf_counter()
        with self.phase("local"):
            yield
        self.turns[client] = self.turns.get(client, 0.0) + time.perf_counter() - start

    @property
    def training(self) -> float:
        """Seconds of everything but evaluation."""
        return sum(s for name, s in self.seconds.items() if name != "evaluate")
